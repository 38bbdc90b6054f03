# lme4 (glmer) or glmmTMB on one generalised case, in a process of its own; prints one line of JSON.
#   Rscript glmm.R PACKAGE CASE FORMULA FAMILY DATA BUDGET
# DATA is a CSV file (gz allowed) or "package:object". The time runs from data frame to printed summary.
args <- commandArgs(TRUE)
package <- args[1]; case <- args[2]; formula <- as.formula(args[3]); name <- args[4]; source <- args[5]; budget <- as.numeric(args[6])
import_time <- system.time(suppressMessages(library(package, character.only = TRUE)))[["elapsed"]]
if (grepl("^[a-z0-9]+:", source)) {
  parts <- strsplit(source, ":")[[1]]
  shelf <- new.env()
  data(list = parts[2], package = parts[1], envir = shelf)
  data <- shelf[[parts[2]]]
} else {
  data <- if (grepl("gz$", source)) data.table::fread(cmd = paste("zcat", source), data.table = FALSE) else read.csv(source)
  groups <- unique(unlist(lapply(lme4::findbars(formula), function(bar) all.vars(bar[[3]]))))
  for (column in names(data)) if (column %in% groups || is.character(data[[column]])) data[[column]] <- factor(data[[column]])
}
memory <- function(key) {
  file <- "/proc/self/status"
  if (!file.exists(file)) return(NA)
  as.numeric(sub("\\D*(\\d+).*", "\\1", grep(key, readLines(file), value = TRUE))) / 1024
}
family <- switch(name, binomial = binomial(), poisson = poisson(), nbinom2 = if (package == "glmmTMB") nbinom2() else NULL)
once <- function() {
  fit <- suppressMessages(suppressWarnings(
    if (package == "glmmTMB") glmmTMB(formula, data, family = family)
    else if (is.null(family)) glmer.nb(formula, data)
    else glmer(formula, data, family = family)))
  text <- capture.output(print(summary(fit)))
  fit
}
invisible(gc())
base <- memory("VmRSS")
clock <- function(k) { start <- proc.time()[["elapsed"]]; for (i in seq_len(k)) fit <<- once(); (proc.time()[["elapsed"]] - start) / k }
first <- clock(1)
repeats <- max(1L, min(20L, as.integer(budget / max(first, 1e-3))))
seconds <- if (first < 10 * budget) vapply(seq_len(repeats), function(i) clock(1), 0) else first
number <- function(x) format(x, digits = 15)
cat(sprintf('@@benchmark {"peer": "%s", "case": "%s", "version": "%s", "note": "", "import": %s, "first": %s, "seconds": %s, "fastest": %s, "repeats": %d, "objective": %s, "base_mb": %s, "peak_mb": %s}\n',
  package, case, as.character(packageVersion(package)), number(import_time), number(first), number(median(seconds)), number(min(seconds)),
  repeats, number(-2 * as.numeric(logLik(fit))), number(base), number(memory("VmHWM"))))
