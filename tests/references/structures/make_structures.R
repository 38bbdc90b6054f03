# glmmTMB fits behind structures.json: generalised models with structured random effects.
#   Rscript make_structures.R       (R 4.2.2, glmmTMB 1.1.5, jsonlite; run in this folder)
suppressMessages({ library(glmmTMB); library(jsonlite) })
d <- read.csv("sim_cov.csv"); d$tf <- factor(d$t); d$g <- factor(d$g); d$tfn <- numFactor(d$tirr)
d$bin <- as.integer(d$y > median(d$y)); d$prop <- plogis((d$y - mean(d$y)) / 2)
s <- read.csv("sim_space.csv"); s$pos <- numFactor(s$px, s$py)
control <- glmmTMBControl(optCtrl = list(iter.max = 5e3, eval.max = 5e3, rel.tol = 1e-14, x.tol = 1e-12))
calls <- expression(
  pois_ar1 = glmmTMB(cnt ~ trt + x + ar1(tf + 0 | g), d, poisson, control = control),
  pois_ou = glmmTMB(cnt ~ trt + x + ou(tfn + 0 | g), d, poisson, control = control),
  pois_exp = glmmTMB(cnt ~ x + exp(pos + 0 | grp), s, poisson, control = control),
  bin_ar1 = glmmTMB(bin ~ trt + x + ar1(tf + 0 | g), d, binomial, control = control),
  nb2_ou = glmmTMB(cnt ~ trt + x + ou(tfn + 0 | g), d, nbinom2, control = control),
  pois_rr = glmmTMB(cnt ~ trt + x + rr(tf + 0 | g, d = 1), d, poisson, control = control),
  beta_cs = glmmTMB(prop ~ trt + x + cs(tf + 0 | g), d, beta_family, control = control),
  pois_toep = glmmTMB(cnt ~ trt + x + toep(tf + 0 | g), d, poisson, control = control)
)
polish <- function(f) {  # Newton steps on TMB's own function
  p <- f$obj$env$last.par.best; p <- if (length(f$obj$env$random)) p[-f$obj$env$random] else p
  for (i in 1:5) { g <- f$obj$gr(p); H <- optimHess(p, f$obj$fn, f$obj$gr); step <- try(solve(H, as.vector(g)), TRUE)
    if (inherits(step, "try-error") || f$obj$fn(p - step) > f$obj$fn(p) + 1e-10) break
    p <- p - step }
  list(loglik = -as.numeric(f$obj$fn(p)), par = setNames(as.list(p), make.unique(names(p))))
}
out <- lapply(as.list(calls), function(call) {
  f <- tryCatch(suppressWarnings(eval(call)), error = function(e) NULL)
  if (is.null(f)) return(NULL)  # glmmTMB's own failure
  v <- VarCorr(f)$cond[[1]]
  c(polish(f), list(call = paste(deparse(f$call), collapse = ""), beta = as.list(fixef(f)$cond),
    se = as.list(sqrt(diag(vcov(f)$cond))), sd = unname(attr(v, "stddev"))[1:min(6, ncol(v))],
    cor = unname(attr(v, "correlation"))[1, 2:min(6, ncol(v))], pdHess = f$sdr$pdHess))
})
names(out) <- names(calls); out <- Filter(Negate(is.null), out)
writeLines(toJSON(out, auto_unbox = TRUE, digits = 15, pretty = TRUE), "structures.json")
