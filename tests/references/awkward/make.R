# Simulated data of awkward structure, and what lme4 says about models of them.
#   Rscript make.R data     writes the data (crossed, growth, partial, nested)
#   Rscript make.R          fills in models.json: lme4's criterion, estimates, standard errors, conditional modes
#                           at the theta given there, and the criterion lme4's own optimiser reaches
suppressMessages({ library(lme4); library(jsonlite); library(splines) })
if (identical(commandArgs(TRUE), "data")) {
  set.seed(20240)
  put <- function(d, name) {
    for (j in names(d)) if (is.double(d[[j]])) d[[j]] <- format(signif(d[[j]], 6), trim = TRUE, digits = 6)
    write.csv(d, paste0(name, ".csv"), row.names = FALSE, quote = FALSE)
  }
  n <- 400  # unbalanced, groups of one row among others, crossed and nested
  s <- sample(60, n, TRUE, prob = (1:60)^1.5); it <- sample(17, n, TRUE); cls <- (s - 1) %/% 7
  x <- rnorm(n, 5, 2); z <- runif(n); cond <- sample(c("lo", "mid", "hi"), n, TRUE, prob = c(.6, .3, .1))
  grp <- sample(c("A", "B", "C", "D"), n, TRUE)
  y <- 3 + .4 * x + (cond == "lo") + rnorm(60)[s] + (rnorm(60) * .3)[s] * x + rnorm(17)[it] * .8 + rnorm(12)[cls + 1] + rnorm(n)
  put(data.frame(y, x, z, cond, grp, s = paste0("s", s), it = paste0("i", it), cls = paste0("c", cls), w = rexp(n) + .05, o = rnorm(n) * 3,
    ord = sample(c("o1", "o2", "o3", "o4"), n, TRUE), flag = sample(c("no", "yes"), n, TRUE),
    big = round(x * 1e4) * 1e3 + 3e9, tiny = y * 1e-9, huge = y * 1e11,
    cell = ifelse(cond == "hi" & grp %in% c("B", "C"), "drop", "keep")), "crossed")
  g <- rep(1:30, times = sample(3:12, 30, TRUE)); N <- length(g); t <- runif(N, 0, 10)
  trt <- c("ctl", "a", "b")[g %% 3 + 1]; B <- matrix(rnorm(90), 30) %*% chol(matrix(c(2, .5, .1, .5, .4, .02, .1, .02, .05), 3))
  put(data.frame(y = 2 + t * .5 - .03 * t^2 + B[g, 1] + B[g, 2] * t + B[g, 3] * t^2 / 4 + rnorm(N) * .7 + g %% 3, t, trt, g = sprintf("g%02d", g)), "growth")
  n <- 500; a <- sample(30, n, TRUE); b <- (a + sample(0:5, n, TRUE)) %% 25; c <- (b %/% 2 + sample(0:2, n, TRUE)) %% 12
  put(data.frame(y = rnorm(30)[a] + rnorm(25)[b + 1] * .7 + rnorm(16)[c + 1] * .5 + rnorm(n), a = paste0("a", a), b = paste0("b", b), c = paste0("c", c),
    u = rnorm(n), v = sample(letters[1:3], n, TRUE)), "partial")
  e <- expand.grid(r = 1:3, p = 1:4, k = 1:3, h = 1:8)
  d <- data.frame(y = rnorm(8)[e$h] * 2 + rnorm(24)[(e$h - 1) * 3 + e$k] + rnorm(96)[((e$h - 1) * 3 + e$k - 1) * 4 + e$p] * .5 + rnorm(288) * .3 + 10,
    h = paste0("h", e$h), k = paste0("k", e$k), p = paste0("p", e$p), r = e$r)
  put(d[-c(3, 17, 44, 88, 120:140, 200), ], "nested")
  quit()
}
read <- function(name) {
  d <- read.csv(paste0(name, ".csv"), stringsAsFactors = TRUE)
  if (!is.null(d$ord)) d$ord <- factor(d$ord, ordered = TRUE)
  d
}
control <- lmerControl(calc.derivs = FALSE, check.conv.singular = "ignore", check.rankX = "silent.drop.cols", check.scaleX = "ignore",
  optCtrl = list(xtol_abs = 1e-10, xtol_rel = 1e-10, ftol_abs = 1e-10, ftol_rel = 1e-14, maxeval = 3e4))
still <- control; still["optimizer"] <- list(NULL)
plain <- function(group) paste(sort(strsplit(gsub("[()]", "", group), ":", fixed = TRUE)[[1]]), collapse = ":")
models <- fromJSON("models.json", simplifyVector = FALSE)
for (i in seq_along(models)) {
  m <- models[[i]]; d <- read(m$data); if (!is.null(m$subset)) d <- droplevels(d[d[[m$subset]] == "keep", ])
  args <- list(as.formula(m$formula), data = quote(d), REML = m$reml, control = quote(control))
  if (!is.null(m$weights)) args$weights <- as.name(m$weights)
  if (!is.null(m$offset)) args$offset <- as.name(m$offset)
  best <- suppressWarnings(suppressMessages(do.call(lmer, args)))
  cnms <- getME(best, "cnms"); left <- seq_along(m$factors); theta <- c()
  for (j in seq_along(cnms)) {
    hit <- Find(function(k) plain(m$factors[[k]]$group) == plain(names(cnms)[j]) && identical(unlist(m$factors[[k]]$names), cnms[[j]]), left)
    F <- do.call(rbind, lapply(m$factors[[hit]]$factor, unlist)); theta <- c(theta, F[lower.tri(F, TRUE)]); left <- setdiff(left, hit)
  }
  args$start <- theta; args$control <- quote(still)
  fit <- suppressWarnings(suppressMessages(do.call(lmer, args)))
  stopifnot(max(abs(getME(fit, "theta") - theta)) < 1e-12)
  criterion <- function(f) if (m$reml) REMLcrit(f) else -2 * as.numeric(logLik(f))
  modes <- lapply(ranef(fit, condVar = TRUE), function(r) {
    v <- attr(r, "postVar"); out <- list(mean_square = mean(as.matrix(r)^2))
    if (!is.list(v)) out$mean_variance <- mean(apply(v, 3, diag)); out })
  names(modes) <- vapply(names(modes), plain, "")
  models[[i]]$lme4 <- list(criterion = criterion(fit), reached = criterion(best), sigma = sigma(fit), beta = as.list(fixef(fit)),
    se = as.list(setNames(sqrt(diag(as.matrix(vcov(fit)))), names(fixef(fit)))), modes = modes, fitted = unname(fitted(fit))[c(1, 7, 50, 100, 200)])
}
write(toJSON(models, auto_unbox = TRUE, digits = 14, pretty = FALSE), "models.json")
