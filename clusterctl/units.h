/* Sizes and times as people write and read them. Pure. */
#pragma once

#include <stdint.h>

#include "lib/err.h"

/* "10G", "512MiB", "4096": bytes; K, M, G, T are powers of 1024; "/s" behind it is allowed where `rate`. -EINVAL, naming `what`. */
int units_parse_bytes(const char *what, const char *text, int rate, uint64_t *ret, struct err *err);
/* A whole number from min to max. -EINVAL, naming `what`. */
int units_parse_number(const char *what, const char *text, uint64_t min, uint64_t max, uint64_t *ret, struct err *err);
/* "90", "90s", "30m", "2h", "1d": so many seconds, from min to max. -EINVAL, naming `what`. */
int units_parse_seconds(const char *what, const char *text, uint64_t min, uint64_t max, uint64_t *ret, struct err *err);
/* "2.1 GiB". Owner: caller. */
char *units_format_bytes(uint64_t bytes);
/* "850 ms", "12.3 s", "4 min 5 s", "3 h 12 min", "5 d 3 h". Owner: caller. */
char *units_format_ms(uint64_t ms);
