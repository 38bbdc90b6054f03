# Cumulative link mixed models of the wine data by ordinal::clmm with quadrature: clmm_wine.json.
# Run in this folder: Rscript ordinal.R. clmm 2022.11-16 confuses two links: asked for "loglog" it evaluates the
# complementary log-log (clm, which has no random effects, does not).
suppressMessages({library(ordinal); library(jsonlite)})
data(wine)
cases <- list(
  flexible = list("logit", "flexible"), symmetric = list("logit", "symmetric"),
  symmetric2 = list("logit", "symmetric2"), equidistant = list("logit", "equidistant"),
  probit = list("probit", "flexible"), cloglog = list("loglog", "flexible"))
out <- lapply(names(cases), function(name) {
  case <- cases[[name]]
  m <- clmm(rating ~ temp + contact + (1 | judge), data = wine, link = case[[1]], threshold = case[[2]], nAGQ = 10,
            control = clmm.control(method = "nlminb", gradTol = 1e-9, innerCtrl = "noWarn"))
  b <- coef(m)
  se <- sqrt(diag(vcov(m)))[seq_along(b)]
  list(link = if (name == "cloglog") name else case[[1]], thresholds = case[[2]], logLik = as.numeric(logLik(m)), estimate = as.list(b),
       se = setNames(as.list(se), names(b)), sd = as.numeric(m$ST[[1]]))
})
names(out) <- names(cases)
write(toJSON(out, digits = 15, auto_unbox = TRUE, pretty = TRUE), "clmm_wine.json")
