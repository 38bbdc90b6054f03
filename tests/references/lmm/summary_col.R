# The two small models of statsmodels' test_summary_col, whose printed standard errors come from a joint Hessian.
library(lme4)
d <- data.frame(Y = c(1.727, -1.037, 2.904, 3.569, 4.629, 5.736, 6.747, 7.020, 5.624, 10.155, 10.400, 17.164, 17.276,
                      14.988, 14.453), X = 1:15, g = rep(1:3, c(5, 4, 6)))
for (f in list(Y ~ X + (1 | g), X ~ Y + (1 | g))) {
  m <- lmer(f, d, control = lmerControl(optCtrl = list(ftol_abs = 1e-14, xtol_abs = 1e-12)))
  print(c(fixef(m), sqrt(diag(vcov(m))), theta = getME(m, "theta")), digits = 10)
}
