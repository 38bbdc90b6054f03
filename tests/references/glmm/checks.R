# Reference values for checks of generalised models: Rscript checks.R > checks.json
# Nakagawa's variances are written out by hand; the sandwich differentiates a Laplace likelihood written here.
suppressMessages({library(lme4); library(numDeriv)})
gm <- glmer(cbind(incidence, size - incidence) ~ period + (1 | herd), cbpp, family = binomial,
            control = glmerControl(tolPwrss = 1e-13))
groups <- split(seq_len(nrow(cbpp)), cbpp$herd)
cluster <- function(p, rows) {
  X <- model.matrix(~ period, cbpp)[rows, , drop = FALSE]
  y <- cbpp$incidence[rows]; m <- cbpp$size[rows]; u <- 0
  for (i in 1:60) {
    pr <- plogis(drop(X %*% p[1:4]) + p[5] * u)
    step <- (u - p[5] * sum(y - m * pr)) / (1 + p[5]^2 * sum(m * pr * (1 - pr)))
    u <- u - step
    if (abs(step) < 1e-14) break
  }
  pr <- plogis(drop(X %*% p[1:4]) + p[5] * u)
  sum(dbinom(y, m, pr, log = TRUE)) - u^2 / 2 - log(1 + p[5]^2 * sum(m * pr * (1 - pr))) / 2
}
total <- function(p) -sum(sapply(groups, function(rows) cluster(p, rows)))
par <- nlminb(c(fixef(gm), getME(gm, "theta")), total, control = list(rel.tol = 1e-15))$par
for (i in 1:3) par <- par - solve(hessian(total, par), grad(total, par))
S <- t(sapply(groups, function(rows) grad(function(p) cluster(p, rows), par)))
A <- solve(hessian(total, par))
robust <- sqrt(diag(A %*% crossprod(S) %*% A))

# the hat matrix of the working linear model, dense
X <- model.matrix(~ period, cbpp); Z <- model.matrix(~ 0 + herd, cbpp)
eta <- drop(X %*% par[1:4]) + drop(Z %*% as.matrix(ranef(gm)$herd))
w <- cbpp$size * plogis(eta) * (1 - plogis(eta))
T <- cbind(X, Z * par[5]); P <- diag(c(rep(0, 4), rep(1, 15)))
H <- T %*% solve(crossprod(T, w * T) + P) %*% t(w * T)

data(grouseticks)
gp <- glmer(TICKS ~ YEAR + (1 | BROOD), grouseticks, family = poisson, control = glmerControl(tolPwrss = 1e-13))
vf <- var(drop(model.matrix(gp) %*% fixef(gp))); vr <- as.numeric(VarCorr(gp)$BROOD)
lambda <- mean(exp(drop(model.matrix(gp) %*% fixef(gp)) + vr / 2))
vf2 <- var(drop(X %*% fixef(gm))); vr2 <- as.numeric(VarCorr(gm)$herd)
out <- list(
  pearson = c(sum(residuals(gm, "pearson")^2), df.residual(gm)),
  hatvalues_lme4 = sum(suppressWarnings(hatvalues(gm))), leverage = unname(diag(H)),
  robust_cr0 = unname(robust),
  poisson = list(fixed = vf, random = vr, lambda = lambda, pearson = sum(residuals(gp, "pearson")^2),
                 lognormal = log(1 + 1 / lambda), delta = 1 / lambda, trigamma = trigamma(lambda),
                 zeros = c(sum(grouseticks$TICKS == 0), sum(dpois(0, fitted(gp))))),
  binomial = list(fixed = vf2, random = vr2,
                  r2m = vf2 / (vf2 + vr2 + pi^2 / 3), r2c = (vf2 + vr2) / (vf2 + vr2 + pi^2 / 3)))
cat(jsonlite::toJSON(out, digits = 15, auto_unbox = TRUE), "\n")
