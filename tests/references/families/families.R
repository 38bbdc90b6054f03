# Log-densities from R's own functions at a few points: Rscript families.R > values.json
suppressMessages(library(glmmTMB))
num <- function(x) paste0("[", paste(sprintf("%.17g", x), collapse = ", "), "]")
out <- list()
y <- c(0, 1, 3, 7, 12); m <- c(4, 5, 9, 7, 30); mu <- c(0.02, 0.4, 0.5, 0.93, 0.2); phi <- c(0.3, 2, 15, 400, 1e4)
out$betabinomial <- lchoose(m, y) + lbeta(y + mu * phi, m - y + (1 - mu) * phi) - lbeta(mu * phi, (1 - mu) * phi)
x <- c(-3, 0.1, 2, 40, -1e3); df <- c(0.7, 2, 4.5, 30, 1e3); scale <- c(0.5, 1, 2, 10, 100)
out$student <- dt((x - 0.3) / scale, df, log = TRUE) - log(scale)
yp <- c(1, 2, 3, 8, 20); lambda <- c(1e-8, 0.5, 3, 8, 15); size <- c(0.2, 1, 3, 10, 100)
out$truncated_poisson <- dpois(yp, lambda, log = TRUE) - ppois(0, lambda, lower.tail = FALSE, log.p = TRUE)
out$truncated_nbinom2 <- dnbinom(yp, mu = lambda, size = size, log = TRUE) - pnbinom(0, mu = lambda, size = size, lower.tail = FALSE, log.p = TRUE)
phi1 <- c(0.1, 0.5, 1, 3, 10); size1 <- lambda / phi1
out$truncated_nbinom1 <- dnbinom(yp, mu = lambda, size = size1, log = TRUE) - pnbinom(0, mu = lambda, size = size1, lower.tail = FALSE, log.p = TRUE)
p <- c(0.01, 0.3, 0.5, 0.8, 0.99); yz <- c(0, 0, 3, 0, 8); l2 <- c(1e-3, 0.5, 3, 8, 15)
out$zero_inflated_poisson <- log(p * (yz == 0) + (1 - p) * dpois(yz, l2))
# log-likelihoods of one observation by the compiled code of glmmTMB itself, all parameters given
one <- function(y, family, beta, betad, psi = numeric(0)) {
  d <- data.frame(y = rep(y, 2))
  fit <- suppressWarnings(glmmTMB(y ~ 1, data = d, family = family, doFit = FALSE))
  fit$parameters$beta <- beta; fit$parameters$betad <- betad; if (length(psi)) fit$parameters$psi <- psi
  obj <- with(fit, TMB::MakeADFun(data.tmb, parameters, DLL = "glmmTMB", silent = TRUE))
  -obj$fn(unlist(fit$parameters[c("beta", "betad", if (length(psi)) "psi")])) / 2
}
yt <- c(0, 0.02, 1, 5, 60); bt <- c(0.2, -1, 0.5, 1, 3); dt_ <- c(0.1, 1, -1, 0.7, 0.5); pt <- c(0, 1, -1.5, 0.3, 2)
out$tweedie <- mapply(function(y, b, d, p) one(y, tweedie(), b, d, p), yt, bt, dt_, pt)
yg <- c(0, 1, 3, 7, 20); bg <- c(-2, 0.3, 1, 2, 2.5); dg <- c(0.3, 1, -0.3, 2, 0.1)
out$generalised_poisson <- mapply(function(y, b, d) one(y, genpois(), b, d), yg, bg, dg)
out$truncated_generalised_poisson <- mapply(function(y, b, d) one(y, truncated_genpois(), b, d), yg + 1, bg, dg)
out$com_poisson <- mapply(function(y, b, d) one(y, compois(), b, d), yg, bg, dg)
cat("{\n", paste(sprintf('"%s": %s', names(out), sapply(out, num)), collapse = ",\n"), "\n}\n", sep = "")
