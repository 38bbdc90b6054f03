# lme4 on one case, in a process of its own; prints one line of JSON.
#   Rscript lme4.R CASE FORMULA REML DATA BUDGET
# DATA is a CSV file (gz allowed) or "package:object". The time runs from data frame to printed summary.
import_time <- system.time(suppressMessages(library(lme4)))[["elapsed"]]
args <- commandArgs(TRUE)
case <- args[1]; formula <- as.formula(args[2]); reml <- args[3] == "TRUE"; source <- args[4]; budget <- as.numeric(args[5])
if (grepl("^[a-z0-9]+:", source)) {
  parts <- strsplit(source, ":")[[1]]
  data <- get(parts[2], envir = asNamespace(parts[1]))
} else {
  data <- if (requireNamespace("data.table", quietly = TRUE)) data.table::fread(cmd = paste("zcat", source), data.table = FALSE) else read.csv(source)
  groups <- unique(unlist(lapply(findbars(formula), function(bar) all.vars(bar[[3]]))))
  for (g in groups) data[[g]] <- factor(data[[g]])
}
memory <- function(key) {
  file <- "/proc/self/status"
  if (!file.exists(file)) return(NA)
  as.numeric(sub("\\D*(\\d+).*", "\\1", grep(key, readLines(file), value = TRUE))) / 1024
}
once <- function() {
  fit <- suppressMessages(suppressWarnings(lmer(formula, data, REML = reml)))
  text <- capture.output(print(summary(fit)))
  fit
}
invisible(gc())
base <- memory("VmRSS")
clock <- function(k) { start <- proc.time()[["elapsed"]]; for (i in seq_len(k)) fit <<- once(); (proc.time()[["elapsed"]] - start) / k }
first <- clock(1)
# The clock ticks in milliseconds: small fits are timed in batches of 20.
batch <- if (first < 0.2) 20L else 1L
repeats <- max(1L, min(200L %/% batch, as.integer(budget / max(first * batch, 1e-3))))
seconds <- if (first < 10 * budget) vapply(seq_len(repeats), function(i) clock(batch), 0) else first
objective <- if (isREML(fit)) REMLcrit(fit) else -2 * as.numeric(logLik(fit))
number <- function(x) format(x, digits = 15)
cat(sprintf('@@benchmark {"peer": "lme4", "case": "%s", "version": "%s", "note": "import is library(lme4)", "import": %s, "first": %s, "seconds": %s, "fastest": %s, "repeats": %d, "objective": %s, "base_mb": %s, "peak_mb": %s}\n',
  case, as.character(packageVersion("lme4")), number(import_time), number(first), number(median(seconds)), number(min(seconds)),
  repeats * batch, number(objective), number(base), number(memory("VmHWM"))))
