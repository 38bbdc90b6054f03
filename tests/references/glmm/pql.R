# Penalised quasi-likelihood of MASS (7.3) with nlme: values of tests/fit/test_pql.py.
# The residual SD is held at 1 (binomial and Poisson variances as they are) or estimated (glmmPQL's default).
# summary() multiplies standard errors of ML fits by sqrt(n / (n - p)); here they are divided by it.
library(MASS)
library(nlme)
show <- function(m, n) {
  table <- summary(m)$tTable
  print(cbind(table[, 1], table[, 2] * sqrt((n - nrow(table)) / n)), digits = 9)
  print(VarCorr(m))
}
held <- lmeControl(sigma = 1, msTol = 1e-12, tolerance = 1e-10, opt = "nlminb")
d <- lme4::cbpp
for (control in list(held, lmeControl(tolerance = 1e-10)))
  show(glmmPQL(cbind(incidence, size - incidence) ~ period, random = ~ 1 | herd, family = binomial, data = d,
               control = control, niter = 50, verbose = FALSE), nrow(d))
g <- transform(lme4::grouseticks, HEIGHT = (HEIGHT - mean(HEIGHT)) / 100)
show(glmmPQL(TICKS ~ YEAR + HEIGHT, random = ~ 1 | BROOD, family = poisson, data = g, control = held,
             niter = 50, verbose = FALSE), nrow(g))
b <- bacteria
show(glmmPQL(y ~ trt + I(week > 2), random = ~ 1 | ID, family = binomial, data = b, control = held, niter = 50,
             verbose = FALSE), nrow(b))
