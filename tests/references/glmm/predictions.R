# Reference values of tests/inference/test_glmm_prediction.py: Rscript predictions.R, in this directory.
# glmmTMB's standard errors come from the joint precision of parameters and random effects (sdreport).
suppressMessages({library(lme4); library(glmmTMB); library(jsonlite)})
read <- function(name) read.csv(file.path("..", "data", paste0(name, ".csv")), stringsAsFactors = TRUE)
one <- function(fit, newdata, type, re) {
  p <- predict(fit, newdata = newdata, type = type, se.fit = TRUE, allow.new.levels = TRUE, re.form = re)
  list(fit = as.numeric(p$fit), se = as.numeric(p$se.fit))
}
both <- function(fit, newdata, types, population = TRUE) {
  res <- list()
  for (t in types) {
    res[[paste0(t, "_all")]] <- one(fit, newdata, t, NULL)
    if (population) res[[paste0(t, "_population")]] <- one(fit, newdata, t, NA)
  }
  res
}
out <- list()
data(cbpp, package = "lme4")
fit <- glmmTMB(cbind(incidence, size - incidence) ~ period + (1 | herd), cbpp, binomial)
nd <- data.frame(period = factor(c("1", "2", "3", "4", "1")), herd = factor(c("1", "5", "15", "9", "2")))
out$cbpp <- list(newdata = nd, values = both(fit, nd, c("link", "response")))

owls <- read("Owls")
fit <- glmmTMB(SiblingNegotiation ~ FoodTreatment * SexParent + offset(logBroodSize) + (1 | Nest),
               ziformula = ~ 1, family = nbinom2, data = owls)
nd <- owls[c(1, 50, 200, 300, 599), c("FoodTreatment", "SexParent", "logBroodSize", "Nest")]
out$owls <- list(newdata = nd, values = both(fit, nd, c("link", "response", "conditional", "zprob")))

sal <- read("Salamanders")
fit <- glmmTMB(count ~ spp + mined + (1 | site), ziformula = ~ mined + (1 | site), family = poisson, data = sal)
nd <- sal[c(1, 30, 90, 300, 640), c("spp", "mined", "site")]
out$salamanders <- list(newdata = nd, loglik = as.numeric(logLik(fit)),
                        values = both(fit, nd, c("link", "response", "conditional", "zprob")))

ticks <- grouseticks
fit <- glmmTMB(TICKS ~ YEAR + (1 | BROOD) + (1 | LOCATION), family = poisson, data = ticks)
nd <- ticks[c(1, 40, 150, 400), c("YEAR", "BROOD", "LOCATION")]
out$crossed <- list(newdata = nd, loglik = as.numeric(logLik(fit)), values = both(fit, nd, c("link", "response")))
write(toJSON(out, digits = 12, auto_unbox = TRUE, dataframe = "columns"), "predictions.json")
