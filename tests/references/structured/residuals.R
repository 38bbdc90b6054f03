# Residuals, predictions, autocorrelation functions and variograms of nlme 3.1, for test_structured_residuals.py
library(nlme)
library(jsonlite)
num <- function(x) as.numeric(x)
rows <- function(fit) list(
  response = num(resid(fit, type = "response")), pearson = num(resid(fit, type = "pearson")),
  normalized = num(resid(fit, type = "normalized")), fitted = num(fitted(fit)), sigma = fit$sigma
)
control <- lmeControl(tolerance = 1e-10, msTol = 1e-12, msMaxIter = 500, maxIter = 500)
oc <- data.frame(as.data.frame(Orthodont), occ = Orthodont$age / 2 - 3)
oc$Subject <- factor(as.character(oc$Subject))
growth <- lme(distance ~ age * Sex, random = ~ 1 | Subject, data = oc, correlation = corAR1(form = ~ occ | Subject),
              weights = varIdent(form = ~ 1 | Sex), control = control)
new <- data.frame(age = c(15, 9), occ = c(4, 1), Sex = c("Male", "Female"), Subject = c("M01", "F02"))
table <- function(v) list(lag = num(v$lag), acf = num(v$ACF))
vario <- function(v) list(variog = num(v$variog), dist = num(v$dist), pairs = num(v$n.pairs))
bw <- as.data.frame(BodyWeight)
bw$Rat <- factor(as.character(bw$Rat))
rats <- lme(weight ~ Time * Diet, random = ~ Time | Rat, data = bw, weights = varPower(), control = control)
wheat <- gls(yield ~ variety - 1, data = Wheat2, correlation = corSpher(c(28, 0.2), form = ~ latitude + longitude, nugget = TRUE))
plain <- gls(yield ~ variety - 1, data = Wheat2)
out <- list(
  growth = c(rows(growth), list(
    predict = num(predict(growth, new, level = 1)), predict_population = num(predict(growth, new, level = 0)),
    acf_pearson = table(ACF(growth)), acf_normalized = table(ACF(growth, resType = "normalized"))
  )),
  rats = c(rows(rats), list(
    acf = table(ACF(rats, maxLag = 6)),
    variogram = vario(Variogram(rats, form = ~ Time)),
    variogram_robust = vario(Variogram(rats, form = ~ Time, robust = TRUE)),
    variogram_fixed = vario(Variogram(rats, form = ~ Time, collapse = "fixed", nint = 8))
  )),
  wheat = list(
    plain = vario(Variogram(plain, form = ~ latitude + longitude)),
    far = vario(Variogram(plain, form = ~ latitude + longitude, maxDist = 20, nint = 10))
  )
)
write_json(out, "tests/references/structured/residuals.json", digits = NA, auto_unbox = TRUE)
