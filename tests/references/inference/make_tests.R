# Likelihood-ratio tests, single term deletions, random terms left out and exact restricted likelihood-ratio tests:
# writes tests.json.     Rscript make_tests.R     (run in this folder; needs lme4, lmerTest, RLRsim, jsonlite)
suppressMessages({ library(lme4); library(lmerTest); library(RLRsim); library(jsonlite) })
columns <- fromJSON("../data/columns.json", simplifyVector = FALSE)
read_table <- function(name) {
  spec <- columns[[name]]
  data <- read.csv(file.path("../data", spec$file), colClasses = "character", check.names = FALSE, na.strings = "")
  for (column in names(spec$columns)) {
    type <- spec$columns[[column]]
    data[[column]] <- if (type$type %in% c("factor", "ordered"))
      factor(data[[column]], levels = unlist(type$levels), ordered = type$type == "ordered")
    else as.numeric(data[[column]])
  }
  data
}
control <- lmerControl(optimizer = "nloptwrap", calc.derivs = FALSE, check.conv.singular = "ignore",
                       optCtrl = list(xtol_abs = 1e-12, xtol_rel = 1e-12, ftol_abs = 1e-12, ftol_rel = 1e-15, maxeval = 1e5))
plain <- function(table) { out <- data.frame(term = rownames(table), as.data.frame(table), check.names = FALSE); rownames(out) <- NULL; out }
probs <- c(0.7, 0.8, 0.9, 0.95, 0.99)
out <- list()

sleepstudy <- read_table("sleepstudy"); cake <- read_table("cake"); Machines <- read_table("Machines")
Penicillin <- read_table("Penicillin"); Pastes <- read_table("Pastes"); Dyestuff <- read_table("Dyestuff")
Dyestuff2 <- read_table("Dyestuff2"); Oats <- read_table("Oats"); emptycells <- read_table("emptycells")

# anova(): successive likelihood-ratio tests by ML
compared <- list(
  sleepstudy = list("Reaction ~ Days + (1 | Subject)", "Reaction ~ Days + (Days || Subject)", "Reaction ~ Days + (Days | Subject)"),
  Machines = list("score ~ 1 + (1 | Worker)", "score ~ Machine + (1 | Worker)", "score ~ Machine + (Machine | Worker)"),
  cake = list("angle ~ temp + (1 | recipe:replicate)", "angle ~ recipe + temp + (1 | recipe:replicate)", "angle ~ recipe * temp + (1 | recipe:replicate)"))
out$anova <- lapply(names(compared), function(name) {
  fits <- lapply(compared[[name]], function(f) lme4::lmer(as.formula(f), data = get(name), REML = FALSE, control = control))
  list(data = name, formulas = compared[[name]], table = plain(do.call(anova, c(fits, list(refit = FALSE, model.names = paste0("m", seq_along(fits)))))))
})

# drop1(): likelihood ratios by ML, and F by Satterthwaite
dropped <- list(list("cake", "angle ~ recipe + temp + (1 | recipe:replicate)"), list("cake", "angle ~ recipe * temperature + (1 | recipe:replicate)"),
                list("Oats", "yield ~ nitroF + Variety + (1 | Block/Variety)"), list("emptycells", "y ~ A + B + (1 | g)"),
                list("emptycells", "y ~ A * B + (1 | g)"))
out$drop1 <- lapply(dropped, function(d) {
  data <- get(d[[1]])
  ml <- do.call(lme4::lmer, list(as.formula(d[[2]]), data = data, REML = FALSE, control = control))
  reml <- do.call(lmerTest::lmer, list(as.formula(d[[2]]), data = data, control = control))
  list(data = d[[1]], formula = d[[2]], chisq = plain(drop1(ml, test = "Chisq")), satterthwaite = plain(drop1(reml)))
})

# ranova(): random terms left out, REML and ML
reduced <- list(list("sleepstudy", "Reaction ~ Days + (Days | Subject)"), list("sleepstudy", "Reaction ~ Days + (1 | Subject)"),
                list("Penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)"), list("Pastes", "strength ~ 1 + (1 | batch/cask)"),
                list("Machines", "score ~ Machine + (Machine | Worker)"), list("Machines", "score ~ Machine + (0 + Machine | Worker)"),
                list("Dyestuff2", "Yield ~ 1 + (1 | Batch)"))
out$ranova <- list()
for (r in reduced) for (reml in c(TRUE, FALSE)) {
  data <- get(r[[1]])
  fit <- do.call(lmerTest::lmer, list(as.formula(r[[2]]), data = data, REML = reml, control = control))
  out$ranova[[length(out$ranova) + 1]] <- list(data = r[[1]], formula = r[[2]], reml = reml, table = plain(ranova(fit)))
}

# RLRsim: quantiles of the distributions (one million draws, fine grid) and p-values of fits
unbalanced <- sleepstudy[-seq(1, 180, by = 7), ]
unbalanced <- unbalanced[!(unbalanced$Subject == "308" & unbalanced$Days > 2), ]
designs <- list(list("Dyestuff", Dyestuff, "Yield ~ 1 + (1 | Batch)"), list("sleepstudy", sleepstudy, "Reaction ~ Days + (1 | Subject)"),
                list("unbalanced", unbalanced, "Reaction ~ Days + (1 | Subject)"), list("unbalanced", unbalanced, "Reaction ~ Days + (0 + Days | Subject)"))
out$distribution <- lapply(designs, function(d) {
  fit <- lme4::lmer(as.formula(d[[3]]), data = d[[2]], control = control)
  X <- getME(fit, "X"); Z <- as.matrix(getME(fit, "Z")); root <- diag(ncol(Z))
  r <- RLRTSim(X, Z, qr(X), root, nsim = 1e6, seed = 3, gridlength = 1000)
  l <- LRTSim(X, Z, 0, root, nsim = 1e6, seed = 3, gridlength = 1000)
  list(data = d[[1]], formula = d[[3]], probs = probs, rlrt = unname(quantile(r, probs)), rlrt_zero = mean(r == 0),
       lrt = unname(quantile(l, probs)), lrt_zero = mean(l == 0))
})
Pastes$sample <- interaction(Pastes$cask, Pastes$batch, drop = TRUE)
full <- lme4::lmer(strength ~ 1 + (1 | batch) + (1 | sample), data = Pastes, control = control)
only_batch <- lme4::lmer(strength ~ 1 + (1 | batch), data = Pastes, control = control)
only_sample <- lme4::lmer(strength ~ 1 + (1 | sample), data = Pastes, control = control)
test <- exactRLRT(only_batch, full, only_sample, nsim = 1e5, seed = 5)
one <- exactRLRT(lme4::lmer(Yield ~ 1 + (1 | Batch), data = Dyestuff, control = control), nsim = 1e5, seed = 5)
out$exactRLRT <- list(list(data = "Pastes", formula = "strength ~ 1 + (1 | batch) + (1 | batch:cask)", term = "(1 | batch)",
                           statistic = unname(test$statistic), p = test$p.value, draws = 1e5),
                      list(data = "Dyestuff", formula = "Yield ~ 1 + (1 | Batch)", term = "(1 | Batch)",
                           statistic = unname(one$statistic), p = one$p.value, draws = 1e5))
out$engine <- sapply(c("lme4", "lmerTest", "RLRsim"), function(p) as.character(packageVersion(p)))
writeLines(toJSON(out, digits = 15, auto_unbox = TRUE, na = "null", pretty = FALSE), "tests.json")
