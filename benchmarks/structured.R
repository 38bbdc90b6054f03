# R's calls of benchmarks/structured.py; prints one line of JSON for each.
#   Rscript structured.R DIRECTORY BUDGET CASE...
# CPU time of one thread from data frame to printed summary. Small fits are timed in batches: the clock ticks in ms.
suppressMessages({ library(nlme); library(glmmTMB) })
args <- commandArgs(TRUE)
folder <- args[1]; budget <- as.numeric(args[2]); cases <- args[-(1:2)]
Orthodont <- as.data.frame(nlme::Orthodont); Orthodont$occ <- (Orthodont$age - 8) / 2; Orthodont$visit <- Orthodont$occ + 1
Orthodont$Subject <- factor(as.character(Orthodont$Subject))
BodyWeight <- as.data.frame(nlme::BodyWeight); BodyWeight$Rat <- factor(as.character(BodyWeight$Rat))
Ovary <- as.data.frame(nlme::Ovary); Ovary$Mare <- factor(as.character(Ovary$Mare))
Ovary$s1 <- sin(2 * pi * Ovary$Time); Ovary$c1 <- cos(2 * pi * Ovary$Time)
Dialyzer <- as.data.frame(nlme::Dialyzer); Dialyzer$Subject <- factor(as.character(Dialyzer$Subject))
Wheat2 <- as.data.frame(nlme::Wheat2)
if (identical(cases, "data")) {
  for (name in c("Orthodont", "BodyWeight", "Ovary", "Dialyzer", "Wheat2"))
    write.csv(get(name), file.path(folder, paste0(name, ".csv")), row.names = FALSE)
  quit()
}
simulated <- function(name) {
  data <- read.csv(file.path(folder, paste0(name, ".csv")))
  for (g in intersect(c("id", "item", "arm", "visit_f", "tf"), names(data))) data[[g]] <- factor(data[[g]])
  if ("visit" %in% names(data)) data$visit_f <- factor(data$visit)
  if ("t" %in% names(data) && max(data$t) < 50) { data$tf <- numFactor(data$t); data$to <- factor(data$t) }
  data
}
growth <- distance ~ age * Sex; rats <- weight ~ Time * Diet; follicles <- follicles ~ s1 + c1
quartic <- rate ~ (pressure + I(pressure^2) + I(pressure^3) + I(pressure^4)) * QB
calls <- list(
  gls_orthodont_ar1 = quote(gls(growth, Orthodont, corAR1(form = ~ occ | Subject))),
  gls_orthodont_ar1_het = quote(gls(growth, Orthodont, corAR1(form = ~ occ | Subject), varIdent(form = ~ 1 | Sex), method = "ML")),
  gls_orthodont_cs = quote(gls(growth, Orthodont, corCompSymm(form = ~ 1 | Subject))),
  gls_orthodont_us = quote(gls(growth, Orthodont, corSymm(form = ~ visit | Subject), varIdent(form = ~ 1 | occ))),
  gls_bodyweight_car1 = quote(gls(rats, BodyWeight, corCAR1(0.9, form = ~ Time | Rat))),
  gls_ovary_ar1 = quote(gls(follicles, Ovary, corAR1(form = ~ 1 | Mare))),
  gls_ovary_arma21 = quote(gls(follicles, Ovary, corARMA(form = ~ 1 | Mare, p = 2, q = 1), method = "ML")),
  gls_dialyzer_varpower = quote(gls(quartic, Dialyzer, weights = varPower(form = ~ pressure))),
  gls_wheat2_exp = quote(gls(yield ~ variety, Wheat2, corExp(5, form = ~ latitude + longitude), method = "ML")),
  gls_wheat2_ratio_nugget = quote(gls(yield ~ variety - 1, Wheat2, corRatio(c(12.5, 0.2), form = ~ latitude + longitude, nugget = TRUE))),
  gls_wheat2_spher_nugget = quote(gls(yield ~ variety - 1, Wheat2, corSpher(c(28, 0.2), form = ~ latitude + longitude, nugget = TRUE))),
  lme_orthodont_ar1 = quote(lme(growth, Orthodont, ~ 1 | Subject, corAR1(form = ~ occ | Subject), method = "ML")),
  lme_orthodont_varident = quote(lme(growth, Orthodont, ~ age | Subject, weights = varIdent(form = ~ 1 | Sex))),
  lme_bodyweight_car1 = quote(lme(rats, BodyWeight, ~ Time | Rat, corCAR1(form = ~ Time | Rat))),
  lme_bodyweight_exp_power = quote(lme(rats, BodyWeight, ~ Time | Rat, corExp(form = ~ Time | Rat), varPower(form = ~ Time))),
  lme_bodyweight_gaus = quote(lme(rats, BodyWeight, ~ 1 | Rat, corGaus(c(10, 0.2), form = ~ Time | Rat, nugget = TRUE))),
  lme_bodyweight_varpower = quote(lme(rats, BodyWeight, ~ Time | Rat, weights = varPower(form = ~ Time))),
  lme_ovary_ar1 = quote(lme(follicles, Ovary, list(Mare = pdDiag(~ s1)), corAR1(form = ~ 1 | Mare))),
  lme_ovary_arma11 = quote(lme(follicles, Ovary, ~ 1 | Mare, corARMA(form = ~ 1 | Mare, p = 1, q = 1), method = "ML")),
  mmrm_500x8 = quote(gls(y ~ arm * visit_f, data, corSymm(form = ~ visit | id), varIdent(form = ~ 1 | visit))),
  lme_ar1_500x20 = quote(lme(y ~ x, data, ~ 1 | id, corAR1(form = ~ t | id))),
  gls_ar1_1e5 = quote(gls(y ~ x, data, corAR1(form = ~ t | id))),
  re_ar1 = quote(glmmTMB(y ~ x + ar1(0 + to | id), data, REML = TRUE)),
  re_ou = quote(glmmTMB(y ~ x + ou(0 + tf | id), data, REML = TRUE))
)
source_of <- c(mmrm_500x8 = "mmrm", lme_ar1_500x20 = "series", gls_ar1_1e5 = "long", re_ar1 = "process", re_ou = "process")
for (case in cases) {
  data <- if (case %in% names(source_of)) simulated(source_of[[case]])
  once <- function() {
    fit <- suppressWarnings(eval(calls[[case]]))
    text <- capture.output(print(summary(fit)))
    fit
  }
  result <- tryCatch({
    cpu <- function() sum(proc.time()[1:2])
    clock <- function(k) { start <- cpu(); for (i in seq_len(k)) fit <<- once(); (cpu() - start) / k }
    fit <- NULL
    first <- clock(1)
    batch <- if (first < 0.2) 20L else 1L
    repeats <- max(1L, min(20L, as.integer(budget / max(first * batch, 1e-3))))
    seconds <- if (first < 10 * budget) median(vapply(seq_len(repeats), function(i) clock(batch), 0)) else first
    sprintf('"seconds": %.6f, "criterion": %.10g', seconds, -2 * as.numeric(logLik(fit)))
  }, error = function(e) sprintf('"failed": "%s"', gsub('["\n]', " ", conditionMessage(e))))
  cat(sprintf('@@benchmark {"case": "%s", %s}\n', case, result))
}
