# Fits behind blme.json: R 4.2.2, blme 1.0-5, lme4 1.1-31, each from several optimisers, the best one kept.
#   Rscript make_blme.R
library(blme)
show <- function(fit) print(c(logLik = logLik(fit), penalised = fit@devcomp$cmp, getME(fit, 'theta'), sigma(fit), fixef(fit)), digits = 15)
show(blmer(Yield ~ 1 + (1 | Batch), Dyestuff2, control = lmerControl(optCtrl = list(maxfun = 1e6))))  # blmer_dyestuff2_default
show(blmer(Reaction ~ Days + (Days | Subject), sleepstudy, control = lmerControl(optCtrl = list(maxfun = 1e6))))  # blmer_sleepstudy_default
show(blmer(Reaction ~ Days + (Days | Subject), sleepstudy, REML = FALSE, cov.prior = NULL, fixef.prior = normal(sd = c(10, 2.5), common.scale = TRUE), control = lmerControl(optCtrl = list(maxfun = 1e6))))  # blmer_sleepstudy_fixefnormal
show(blmer(Reaction ~ Days + (1 | Subject), sleepstudy, cov.prior = gamma(shape = 2.5, rate = 0, posterior.scale = "sd"), control = lmerControl(optCtrl = list(maxfun = 1e6))))  # blmer_sleepstudy_gamma_int
show(blmer(Reaction ~ Days + (Days | Subject), sleepstudy, REML = FALSE, cov.prior = wishart(df = 5, scale = diag(2), common.scale = TRUE), control = lmerControl(optCtrl = list(maxfun = 1e6))))  # blmer_sleepstudy_ml_wishart
