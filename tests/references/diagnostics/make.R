# Diagnostics by lme4 (hatvalues, cooks.distance, rstudent, influence), clubSandwich and car: values.json.
# Rscript make.R > values.json
suppressMessages({library(lme4); library(clubSandwich); library(car)})
tight <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhobeg = 0.02, rhoend = 1e-11))
num <- function(x) paste0("[", paste(formatC(as.numeric(x), digits = 15, format = "g"), collapse = ", "), "]")
out <- list()
put <- function(key, value) out[[length(out) + 1]] <<- sprintf('"%s": %s', key, value)
robust <- function(key, f, kinds = c("CR0", "CR1", "CR1S", "CR2", "CR3"), ...) for (k in kinds) {
  v <- vcovCR(f, type = k, ...)
  put(paste(key, k, "vcov", sep = "."), num(as.matrix(v)))
  put(paste(key, k, "df", sep = "."), num(coef_test(f, vcov = v)$df_Satt))
}
# unbalanced: every fifth and every seventh row of sleepstudy left out
s <- sleepstudy[!(seq_len(180) %% 5 == 0 | seq_len(180) %% 7 == 0), ]
f <- lmer(Reaction ~ Days + (Days | Subject), s, control = tight)
put("sleep.theta", num(getME(f, "theta")))
put("sleep.hat", num(hatvalues(f)))
put("sleep.cook", num(cooks.distance(f)))
put("sleep.rstudent", num(rstudent(f)))
robust("sleep", f)
i <- influence(f, groups = "Subject")
put("sleep.without", num(i[["fixed.effects[-Subject]"]]))
put("sleep.vcov", num(as.matrix(vcov(f))))
put("sleep.group_cook", num(cooks.distance(i)))
# nested
g <- lmer(strength ~ 1 + (1 | batch/cask), Pastes[-c(1, 8, 9, 30, 31, 32), ], control = tight)
put("pastes.theta", num(getME(g, "theta")))
put("pastes.hat", num(hatvalues(g)))
robust("pastes", g)
# crossed, and a term of several columns
h <- lmer(score ~ Machine + (1 | Worker) + (1 | Worker:Machine), nlme::Machines[-c(2, 11, 33), ], control = tight)
put("machines.theta", num(getME(h, "theta")))
put("machines.hat", num(hatvalues(h)))
robust("machines", h)
k <- lmer(angle ~ recipe * temp + (1 | recipe:replicate), cake[-(1:25), ], control = tight)
put("cake.theta", num(getME(k, "theta")))
put("cake.gvif", num(as.matrix(vif(k))[, 1]))
robust("cake", k, c("CR0", "CR2", "CR3"), cluster = interaction(cake[-(1:25), ]$recipe, cake[-(1:25), ]$replicate, drop = TRUE))
p <- lmer(diameter ~ 1 + (1 | plate) + (1 | sample), Penicillin[-(1:9), ], control = tight)
put("penicillin.theta", num(getME(p, "theta")))
put("penicillin.hat", num(hatvalues(p)))
put("penicillin.cook", num(cooks.distance(p)))
cat("{\n", paste(out, collapse = ",\n"), "\n}\n", sep = "")
