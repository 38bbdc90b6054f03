## Relationship matrices of the pedigrees in ped_*.json and ped500.json, by the tabular method and Henderson's rules.

## additive relationship matrix (tabular method); parents precede offspring, NA = unknown
ped_A <- function(ped) {
  n <- nrow(ped); s <- match(ped$sire, ped$id); d <- match(ped$dam, ped$id); A <- matrix(0, n, n)
  for (i in seq_len(n)) {
    if (i > 1) { j <- seq_len(i - 1)
      v <- (if (is.na(s[i])) 0 else A[s[i], j]) + (if (is.na(d[i])) 0 else A[d[i], j]); A[i, j] <- A[j, i] <- v / 2 }
    A[i, i] <- 1 + if (is.na(s[i]) || is.na(d[i])) 0 else A[s[i], d[i]] / 2 }
  dimnames(A) <- list(ped$id, ped$id); A
}
## dominance relationship matrix: D_ij = (A_ss' A_dd' + A_sd' A_ds') / 4 (0 if a parent is unknown), D_ii = 1
ped_D <- function(ped, A = ped_A(ped)) {
  n <- nrow(ped); s <- match(ped$sire, ped$id); d <- match(ped$dam, ped$id); D <- matrix(0, n, n)
  ok <- which(!is.na(s) & !is.na(d)); S <- s[ok]; E <- d[ok]
  D[ok, ok] <- (A[S, S] * A[E, E] + A[S, E] * A[E, S]) / 4
  diag(D) <- 1; dimnames(D) <- list(ped$id, ped$id); D
}
## Henderson's rules for the inverse, with inbreeding: A^-1 = (I-T')D^-1(I-T)
ped_Ainv <- function(ped, A = ped_A(ped)) {
  n <- nrow(ped); s <- match(ped$sire, ped$id); d <- match(ped$dam, ped$id); F <- diag(A) - 1
  Ai <- matrix(0, n, n)
  for (i in seq_len(n)) { p <- c(s[i], d[i]); p <- p[!is.na(p)]; dv <- 1 - sum((1 + F[p]) / 4); k <- 1 / dv
    Ai[i, i] <- Ai[i, i] + k; for (a in p) { Ai[i, a] <- Ai[i, a] - k / 2; Ai[a, i] <- Ai[a, i] - k / 2; for (b in p) Ai[a, b] <- Ai[a, b] + k / 4 } }
  dimnames(Ai) <- dimnames(A); Ai
}
