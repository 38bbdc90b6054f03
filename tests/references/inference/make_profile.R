# Profile likelihood limits by root finding on a dense Gaussian likelihood, and lme4's own (splines) beside them.
# Writes profile.json lines to stdout for the fits named below; run: Rscript make_profile.R
suppressMessages({library(lme4); library(jsonlite)})

# Minus twice the log-likelihood, beta profiled out unless one of its entries is held.
deviance_at <- function(y, X, Zs, sds, rho, sigma) {
  V <- diag(sigma^2, length(y))
  for (b in seq_along(Zs)) {
    Z <- Zs[[b]]$Z; m <- Zs[[b]]$m; k <- ncol(Z[[1]])
    S <- diag(sds[[b]]^2, k)
    if (k == 2 && !is.null(rho[[b]])) S[1, 2] <- S[2, 1] <- rho[[b]] * prod(sds[[b]])
    for (Zl in Z) V <- V + Zl %*% S %*% t(Zl)
  }
  R <- chol(V); yt <- backsolve(R, y, transpose = TRUE)
  r <- if (ncol(X)) { Xt <- backsolve(R, X, transpose = TRUE); qr.resid(qr(Xt), yt) } else yt
  2 * sum(log(diag(R))) + length(y) * log(2 * pi) + sum(r^2)
}

# Everything on one vector: SDs (any sign), arc sines of correlations, log sigma.
limits <- function(y, X, Zs, start, names, level = 0.95) {
  n_sd <- sapply(Zs, function(z) ncol(z$Z[[1]]))
  has_rho <- sapply(Zs, function(z) z$correlated)
  unpack <- function(v) {
    sds <- list(); rho <- list(); at <- 0
    for (b in seq_along(Zs)) {
      sds[[b]] <- v[at + seq_len(n_sd[b])]; at <- at + n_sd[b]
      rho[b] <- list(if (has_rho[b]) { at <- at + 1; sin(v[at]) } else NULL)
    }
    list(sds = sds, rho = rho, sigma = exp(v[at + 1]))
  }
  f <- function(v, y, X) { u <- unpack(v); deviance_at(y, X, Zs, u$sds, u$rho, u$sigma) }
  minimum <- function(g, v) {
    for (i in 1:3) v <- nlminb(v, g, control = list(rel.tol = 1e-15, x.tol = 1e-12))$par
    list(v = v, value = g(v))
  }
  best <- minimum(function(v) f(v, y, X), start)
  z2 <- qchisq(level, 1)
  root <- function(h, lo, hi) uniroot(h, c(lo, hi), tol = 1e-10)$root
  out <- list()
  for (i in seq_along(best$v)) {
    warm <- best$v[-i]
    h <- function(x) {
      g <- function(w) f(append(w, x, i - 1), y, X)
      if (length(warm)) { m <- minimum(g, warm); m$value - best$value - z2 } else g(numeric(0)) - best$value - z2
    }
    back <- if (i == length(best$v)) exp else if (grepl("^cor", names[i])) sin else identity
    bounds <- if (grepl("^cor", names[i])) c(-pi / 2, pi / 2) else if (grepl("^sd", names[i])) c(0, Inf) else c(-Inf, Inf)
    step <- if (grepl("^sd", names[i])) 0.2 * best$v[i] else 0.1
    end <- function(side) {
      x <- best$v[i]
      repeat {
        x <- x + side * step
        if (side * (x - bounds[(3 + side) / 2]) >= 0) {
          x <- bounds[(3 + side) / 2]
          if (h(x) < 0) return(back(x))
          break
        }
        if (h(x) > 0) break
      }
      back(root(h, min(x, best$v[i]), max(x, best$v[i])))
    }
    out[[names[i]]] <- c(end(-1), back(best$v[i]), end(1))
  }
  for (j in seq_len(ncol(X))) {
    h <- function(x) minimum(function(v) f(v, y - x * X[, j], X[, -j, drop = FALSE]), best$v)$value - best$value - z2
    u <- unpack(best$v)
    b <- coef(lm.fit(X, y))[j]
    width <- 6 * sd(y) / max(abs(X[, j]))
    out[[colnames(X)[j]]] <- c(root(h, b - width, b), b, root(h, b, b + width))
  }
  out
}

by_level <- function(group, columns) {
  rows <- split(seq_along(group), group)
  list(Z = lapply(rows, function(r) { Z <- matrix(0, length(group), ncol(columns)); Z[r, ] <- columns[r, ]; Z }),
       m = length(rows), correlated = FALSE)
}

s <- sleepstudy
Z <- by_level(s$Subject, cbind(1, s$Days)); Z$correlated <- TRUE
exact <- limits(s$Reaction, cbind("(Intercept)" = 1, Days = s$Days), list(Z), c(24, 5.7, 0.08, log(25.6)),
                c("sd_(Intercept)|Subject", "sd_Days|Subject", "cor_Days.(Intercept)|Subject", "sigma"))
cat(toJSON(exact, digits = 12, auto_unbox = TRUE), "\n")
d <- Dyestuff
exact <- limits(d$Yield, cbind("(Intercept)" = rep(1, nrow(d))), list(by_level(d$Batch, matrix(1, nrow(d)))),
                c(37, log(50)), c("sd_(Intercept)|Batch", "sigma"))
cat(toJSON(exact, digits = 12, auto_unbox = TRUE), "\n")
print(confint(profile(lmer(Reaction ~ Days + (Days | Subject), s, REML = FALSE), signames = FALSE)), digits = 10)
