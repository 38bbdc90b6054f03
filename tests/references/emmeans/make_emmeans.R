# Reference values of marginal means, contrasts and slopes from R's emmeans 1.8.4 (lme4 1.1-31, lmerTest, pbkrtest).
# Run in this folder: Rscript make_emmeans.R      writes emmeans.json
suppressMessages({library(lme4); library(lmerTest); library(emmeans); library(jsonlite)})
emm_options(lmer.df = "kenward-roger", msg.interaction = FALSE, msg.nesting = FALSE)
data_dir <- "../data"
described <- fromJSON(file.path(data_dir, "columns.json"), simplifyVector = FALSE)
read <- function(name) {
  entry <- described[[name]]
  d <- read.csv(file.path(data_dir, entry$file), colClasses = "character", na.strings = "")
  for (v in names(entry$columns)) {
    spec <- entry$columns[[v]]
    d[[v]] <- switch(spec$type, numeric = as.numeric(d[[v]]), integer = as.integer(d[[v]]),
                     factor = factor(d[[v]], levels = unlist(spec$levels)),
                     ordered = factor(d[[v]], levels = unlist(spec$levels), ordered = TRUE), d[[v]])
  }
  d
}
ctrl <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-10, maxfun = 1e5),
                    check.conv.grad = "ignore", check.conv.singular = "ignore")
out <- list()
frame_of <- function(x) {
  if (!is.data.frame(x)) x <- as.data.frame(x)
  for (v in names(x)) if (is.factor(x[[v]])) x[[v]] <- as.character(x[[v]])
  x
}
models <- list()
model <- function(id, formula, data, transform = NULL, weights = NULL) {
  d <- read(data)
  if (!is.null(transform)) d <- eval(transform, d, environment())
  if (is.null(weights)) m <- do.call(lmer, list(as.formula(formula), data = d, control = ctrl))
  else { d$.w <- d[[weights]]; m <- do.call(lmer, list(as.formula(formula), data = d, weights = d[[weights]], control = ctrl)) }
  models[[id]] <<- list(formula = formula, data = data, weights = weights,
                        theta = unname(getME(m, "theta")), sigma = sigma(m))
  m
}
keep <- function(model, what, value) out[[length(out) + 1]] <<- list(model = model, what = what, table = frame_of(value))

oats <- model("oats", "yield ~ nitroF * Variety + (1 | Block/Variety)", "Oats")
e <- emmeans(oats, ~nitroF)
keep("oats", "means nitroF", summary(e))
for (a in c("tukey", "none", "sidak", "bonferroni", "holm", "hochberg", "fdr", "BY", "hommel", "scheffe"))
  keep("oats", paste("pairs nitroF", a), summary(pairs(e, adjust = a), infer = TRUE))
for (m in c("trt.vs.ctrl", "trt.vs.ctrlk", "eff", "del.eff", "consec", "mean_chg", "poly", "identity"))
  keep("oats", paste("contrast nitroF", m), summary(contrast(e, m, adjust = "none"), infer = TRUE))
set.seed(1)
keep("oats", "contrast nitroF trt.vs.ctrl mvt", summary(contrast(e, "trt.vs.ctrl", adjust = "mvt"), infer = TRUE))
keep("oats", "contrast nitroF consec mvt", summary(contrast(e, "consec", adjust = "mvt"), infer = TRUE))
keep("oats", "means nitroF by Variety", summary(emmeans(oats, ~nitroF | Variety)))
keep("oats", "pairs nitroF by Variety", summary(pairs(emmeans(oats, ~nitroF | Variety)), infer = TRUE))
ee <- emmeans(oats, ~nitroF * Variety)
keep("oats", "interaction poly consec", summary(contrast(ee, interaction = c("poly", "consec")), infer = TRUE))
keep("oats", "pairs all", summary(pairs(ee), infer = TRUE))
keep("oats", "test all joint", test(pairs(e), joint = TRUE))
keep("oats", "means greater 90", summary(e, null = 90, side = ">", infer = TRUE))
keep("oats", "joint", joint_tests(oats))
keep("oats", "joint by Variety", joint_tests(oats, by = "Variety"))
keep("oats", "effect size", eff_size(e, sigma = sigma(oats), edf = 45))

cake <- model("cake", "angle ~ recipe * temp + (1 | recipe:replicate)", "cake")
keep("cake", "trends recipe", summary(emtrends(cake, ~recipe, var = "temp")))
keep("cake", "trends recipe pairs", summary(pairs(emtrends(cake, ~recipe, var = "temp")), infer = TRUE))
keep("cake", "means at", summary(emmeans(cake, ~recipe * temp, at = list(temp = c(180, 210)))))
keep("cake", "means range", summary(emmeans(cake, ~recipe * temp, cov.reduce = range)))
keep("cake", "joint", joint_tests(cake))

cakep <- model("cake_poly", "angle ~ recipe + poly(temp, 2) + (1 | recipe:replicate)", "cake")
keep("cake_poly", "means recipe", summary(emmeans(cakep, ~recipe)))
keep("cake_poly", "trends at", summary(emtrends(cakep, ~temp, var = "temp", at = list(temp = c(180, 200, 220)), delta.var = 1e-4)))

cakel <- model("cake_log", "angle ~ recipe * log(temp) + (1 | recipe:replicate)", "cake")
keep("cake_log", "means recipe", summary(emmeans(cakel, ~recipe)))
keep("cake_log", "trends recipe", summary(emtrends(cakel, ~recipe, var = "temp", delta.var = 1e-4)))
keep("cake_log", "trends log", summary(emtrends(cakel, ~recipe, var = "log(temp)")))

cells <- model("cells", "y ~ A + B + (1 | g)", "emptycells")
for (w in c("equal", "proportional", "outer", "cells", "flat"))
  keep("cells", paste("means A", w), summary(emmeans(cells, ~A, weights = w)))
keep("cells", "joint", joint_tests(cells))
keep("cells", "pairs A", summary(pairs(emmeans(cells, ~A)), infer = TRUE))
empty <- model("empty", "y ~ A * B + (1 | g)", "emptycells")
keep("empty", "means A:B", summary(emmeans(empty, ~A * B)))
keep("empty", "pairs A by B", summary(pairs(emmeans(empty, ~A | B)), infer = TRUE))
keep("empty", "pairs A by B sidak", summary(pairs(emmeans(empty, ~A | B), adjust = "sidak"), infer = TRUE))
keep("empty", "joint", joint_tests(empty))

log_sleep <- model("log_sleep", "log(Reaction) ~ Days + (Days | Subject)", "sleepstudy")
e <- emmeans(log_sleep, ~Days, at = list(Days = c(0, 3, 9)))
keep("log_sleep", "response", summary(e, type = "response"))
keep("log_sleep", "response bias", summary(e, type = "response", bias.adjust = TRUE, sigma = 0.3))
keep("log_sleep", "ratios", summary(pairs(e), type = "response", infer = TRUE))
keep("log_sleep", "regrid pairs", as.data.frame(pairs(regrid(e)))[, c("contrast", "estimate", "SE")])
sqrt_sleep <- model("sqrt_sleep", "sqrt(Reaction) ~ Days + (Days | Subject)", "sleepstudy")
keep("sqrt_sleep", "response", summary(emmeans(sqrt_sleep, ~Days, at = list(Days = c(0, 9))), type = "response"))
keep("sqrt_sleep", "response bias", summary(emmeans(sqrt_sleep, ~Days, at = list(Days = c(0, 9))), type = "response", bias.adjust = TRUE, sigma = 0.5))
inv_sleep <- model("inv_sleep", "1000/Reaction ~ Days + (1 | Subject)", "sleepstudy")
keep("inv_sleep", "link", summary(emmeans(inv_sleep, ~Days)))

weighted <- model("weighted", "Reaction ~ factor(Days) + (1 | Subject)", "sleepstudy", weights = "w")
keep("weighted", "means equal", summary(emmeans(weighted, ~1, lmer.df = "satterthwaite")))
keep("weighted", "means proportional", summary(emmeans(weighted, ~1, weights = "proportional", lmer.df = "satterthwaite")))

orth <- model("orth", "distance ~ age * Sex + (age | Subject)", "Orthodont")
keep("orth", "trends Sex", summary(emtrends(orth, ~Sex, var = "age")))
keep("orth", "pairs Sex", summary(pairs(emmeans(orth, ~Sex)), infer = TRUE))
keep("orth", "joint", joint_tests(orth))
emm_options(lmer.df = "satterthwaite")
keep("orth", "pairs Sex satterthwaite", summary(pairs(emmeans(orth, ~Sex)), infer = TRUE))
keep("empty", "means A:B satterthwaite", summary(emmeans(empty, ~A * B)))

write_json(list(emmeans = as.character(packageVersion("emmeans")), models = models, values = out), "emmeans.json",
           digits = 14, auto_unbox = TRUE, na = "null", dataframe = "columns", pretty = FALSE)
