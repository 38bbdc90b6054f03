# One task of benchmarks/inference.py in R; prints one line of JSON. Only the question is timed, not the fit.
#   Rscript inference.R TASK [CSV]
suppressMessages({ library(lme4); library(lmerTest); library(pbkrtest) })
args <- commandArgs(TRUE)
task <- args[1]
memory <- function(key) {
  file <- "/proc/self/status"
  if (!file.exists(file)) return(NA)
  as.numeric(sub("\\D*(\\d+).*", "\\1", grep(key, readLines(file), value = TRUE))) / 1024
}
sleep <- function(reml) lme4::lmer(Reaction ~ Days + (Days | Subject), sleepstudy, REML = reml)
scale <- 1
if (task == "bootstrap_1000") {
  fit <- sleep(FALSE)
  scale <- 5 # 200 replicates, scaled to 1 000
  ask <- function() suppressMessages(suppressWarnings(sd(bootMer(fit, function(m) fixef(m)[["Days"]], nsim = 200, seed = 1)$t)))
} else if (task == "profile") {
  fit <- sleep(FALSE)
  ask <- function() confint(profile(fit, signames = FALSE))["Days", 1]
} else if (task == "satterthwaite_insteval") {
  fit <- lme4::lmer(y ~ service + (1 | s) + (1 | d) + (1 | dept:service), InstEval)
  ask <- function() coef(summary(as_lmerModLmerTest(fit)))["service1", "df"]
} else {
  data <- read.csv(args[2])
  for (g in c("g", "h")) data[[g]] <- factor(data[[g]])
  fit <- lme4::lmer(y ~ x + (x | g) + (1 | h), data)
  ask <- function() Lb_ddf(c(0, 1), vcov(fit), vcovAdj(fit))
}
invisible(gc())
base <- memory("VmRSS")
start <- proc.time()[["elapsed"]]
value <- ask()
seconds <- (proc.time()[["elapsed"]] - start) * scale
cat(sprintf('@@benchmark {"seconds": %.6f, "value": %.10g, "mb": %.1f}\n', seconds, value, memory("VmHWM") - base))
