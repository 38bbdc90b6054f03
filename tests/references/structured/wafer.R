# Values of tests/fit/test_structured_modes.py: nlme's Wafer data (Pinheiro & Bates 2000, appendix A.30).
library(nlme)
f <- current ~ voltage + I(voltage^2)
both <- list(Wafer = pdDiag(~ voltage), Site = pdDiag(~ voltage))
fits <- list(
  power = lme(f, Wafer, random = both, weights = varPower(form = ~ voltage)),
  expon = lme(f, Wafer, random = both, weights = varExp(form = ~ voltage)),
  nested = lme(f, Wafer, random = ~ 1 | Wafer/Site, weights = varPower(form = ~ voltage)),
  constpower = lme(f, Wafer, random = list(Wafer = ~ voltage, Site = ~ 1), weights = varConstPower(form = ~ voltage)),
  ar1 = lme(f, Wafer, random = ~ 1 | Wafer, correlation = corAR1(form = ~ 1 | Wafer/Site),
            weights = varPower(form = ~ voltage)))
for (name in names(fits)) cat(name, sprintf("%.8f", logLik(fits[[name]])), coef(fits[[name]]$modelStruct), "\n")
