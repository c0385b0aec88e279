/* Join tokens: 16 random bytes as hex, valid for JOIN_TOKEN_HOURS, good for one host. Only SHA-256 hashes are kept, in a
 * file of mode 0600, one a line: HASH EXPIRES NAME ("-" until a host has used it; that host may ask again with it, as its
 * answer may have been lost). Limit: LIMIT_JOIN_TOKENS; past it the oldest goes. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

#define JOIN_TOKEN_BYTES 16
#define JOIN_TOKEN_HEX (2 * JOIN_TOKEN_BYTES)
#define JOIN_TOKEN_HOURS 24
#define JOIN_TOKEN_HASH_HEX 64

struct join_token {
	char hash[JOIN_TOKEN_HASH_HEX + 1];
	int64_t expires;              /* unix time */
	char *name;                   /* NULL: unused */
};

struct join_tokens {
	char *path;
	struct join_token *list;
	size_t n;
};

/* A missing file is no error. Lines that make no sense are left out. */
int join_tokens_load(struct join_tokens *t, const char *path, struct err *err);
/* Makes one and stores its hash durably. */
int join_tokens_make(struct join_tokens *t, int64_t now, char ret_hex[JOIN_TOKEN_HEX + 1], struct err *err);
/* 0, or -EACCES with the reason: unknown, too old, used by another host. */
int join_tokens_check(struct join_tokens *t, const char *hex, const char *name, int64_t now, struct err *err);
/* Binds it to the host. */
int join_tokens_use(struct join_tokens *t, const char *hex, const char *name, struct err *err);
void join_tokens_free(struct join_tokens *t);
