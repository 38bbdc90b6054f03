# Reference values of tests/test_adapters.py and tests/report/test_tidy.py: adapters.json.
# Run: Rscript make_adapters.R   (R 4.2, lme4 1.1-31, lmerTest 3.1-3)
suppressMessages({library(lmerTest); library(jsonlite)})

strict <- lmerControl(optimizer = "bobyqa",
                      optCtrl = list(rhoend = 1e-10, maxfun = 1e5), calc.derivs = TRUE)
data(sleepstudy, package = "lme4")
fit <- lmer(Reaction ~ Days + (Days | Subject), sleepstudy, control = strict)
# lmerTest takes derivatives by differences: its df hold to about 1e-5
coefficients <- coef(summary(fit, ddf = "Satterthwaite"))

# Profile limits of the likelihood (lme4 refits by ML before profiling)
ml <- lme4::lmer(Reaction ~ Days + (Days | Subject), sleepstudy, REML = FALSE, control = strict)
profile <- profile(ml, signames = FALSE, delta.cutoff = 1/32, devtol = 1e-10)
limits <- confint(profile)

out <- list(
  versions = list(R = paste(R.version$major, R.version$minor, sep = "."),
                  lme4 = as.character(packageVersion("lme4")),
                  lmerTest = as.character(packageVersion("lmerTest"))),
  coefficients = list(term = rownames(coefficients), estimate = coefficients[, 1], std_error = coefficients[, 2],
                      df = coefficients[, 3], statistic = coefficients[, 4], p_value = coefficients[, 5]),
  varcorr = as.data.frame(VarCorr(fit)),
  profile = list(name = rownames(limits), conf_low = limits[, 1], conf_high = limits[, 2])
)
write_json(out, "adapters.json", digits = 12, auto_unbox = TRUE, pretty = TRUE, na = "null")
