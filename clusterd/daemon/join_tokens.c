#include "clusterd/daemon/join_tokens.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "lib/atomic_file.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/limits.h"

#define FILE_MAX (64u << 10)
#define NAME_MAX_CHARS 255

static void to_hex(const uint8_t *bytes, size_t n, char *hex)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < n; i++) {
		hex[2 * i] = digits[bytes[i] >> 4];
		hex[2 * i + 1] = digits[bytes[i] & 15];
	}
	hex[2 * n] = '\0';
}

static void hash_of(const char *text, char ret[JOIN_TOKEN_HASH_HEX + 1])
{
	uint8_t digest[EVP_MAX_MD_SIZE];
	unsigned len = 0;

	if (EVP_Digest(text, strlen(text), digest, &len, EVP_sha256(), NULL) != 1)
		abort();   /* OpenSSL without SHA-256 */
	to_hex(digest, len, ret);
}

static void push(struct join_tokens *t, const char *hash, int64_t expires, const char *name)
{
	struct join_token *token;

	t->list = mem_realloc(t->list, (t->n + 1) * sizeof(*t->list));
	token = &t->list[t->n++];
	*token = (struct join_token){.expires = expires, .name = name ? str_dup(name) : NULL};
	snprintf(token->hash, sizeof(token->hash), "%s", hash);
}

static void drop(struct join_tokens *t, size_t i)
{
	free(t->list[i].name);
	memmove(t->list + i, t->list + i + 1, (--t->n - i) * sizeof(*t->list));
}

static bool is_hash(const char *text)
{
	for (size_t i = 0; i < JOIN_TOKEN_HASH_HEX; i++)
		if (!isxdigit((unsigned char)text[i]))
			return false;
	return text[JOIN_TOKEN_HASH_HEX] == '\0';
}

int join_tokens_load(struct join_tokens *t, const char *path, struct err *err)
{
	struct buf text = {0};
	char *save = NULL;
	int rc;

	*t = (struct join_tokens){.path = str_dup(path)};
	rc = atomic_file_read(path, FILE_MAX, &text, err);
	if (rc == -ENOENT) {
		buf_free(&text);
		return 0;
	}
	if (rc == 0) {
		_cleanup_free_ char *copy = str_dup(buf_str(&text));

		for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
			char hash[JOIN_TOKEN_HASH_HEX + 2], name[NAME_MAX_CHARS + 1];
			int64_t expires;

			if (sscanf(line, "%65s %" SCNd64 " %255s", hash, &expires, name) == 3 && is_hash(hash))
				push(t, hash, expires, strcmp(name, "-") ? name : NULL);
		}
	}
	buf_free(&text);
	return rc;
}

static int store(const struct join_tokens *t, struct err *err)
{
	struct buf text = {0};
	int rc;

	for (size_t i = 0; i < t->n; i++)
		buf_printf(&text, "%s %" PRId64 " %s\n", t->list[i].hash, t->list[i].expires, t->list[i].name ? t->list[i].name : "-");
	rc = atomic_file_write(t->path, text.len ? (const void *)text.data : "", text.len, 0600, err);
	buf_free(&text);
	return rc;
}

int join_tokens_make(struct join_tokens *t, int64_t now, char ret_hex[JOIN_TOKEN_HEX + 1], struct err *err)
{
	uint8_t random[JOIN_TOKEN_BYTES];
	char hex[JOIN_TOKEN_HEX + 1], hash[JOIN_TOKEN_HASH_HEX + 1];
	int rc;

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return err_set(err, EIO, "join token: no random numbers: %s", strerror(errno));
	for (size_t i = t->n; i-- > 0;)
		if (t->list[i].expires <= now)
			drop(t, i);
	if (t->n >= LIMIT_JOIN_TOKENS)
		drop(t, 0);
	to_hex(random, sizeof(random), hex);
	hash_of(hex, hash);
	push(t, hash, now + JOIN_TOKEN_HOURS * 3600, NULL);
	rc = store(t, err);
	if (rc < 0) {
		drop(t, t->n - 1);
		return err_prefix(err, rc, "join token");
	}
	memcpy(ret_hex, hex, sizeof(hex));
	return 0;
}

static struct join_token *find(struct join_tokens *t, const char *hex)
{
	char hash[JOIN_TOKEN_HASH_HEX + 1];
	struct join_token *found = NULL;

	hash_of(hex, hash);
	for (size_t i = 0; i < t->n; i++)
		if (CRYPTO_memcmp(t->list[i].hash, hash, JOIN_TOKEN_HASH_HEX) == 0)
			found = &t->list[i];
	return found;
}

int join_tokens_check(struct join_tokens *t, const char *hex, const char *name, int64_t now, struct err *err)
{
	const struct join_token *token = find(t, hex);

	if (!token)
		return err_set(err, EACCES, "this host gave out no such join token: make one here with 'clusterctl cluster token', and join "
			       "the host that made it");
	if (token->expires <= now)
		return err_set(err, EACCES, "the join token is older than %d hours: make a new one with 'clusterctl cluster token'",
			       JOIN_TOKEN_HOURS);
	if (token->name && strcmp(token->name, name) != 0)
		return err_set(err, EACCES, "the join token was used by host %s: make one for each host with 'clusterctl cluster token'",
			       token->name);
	return 0;
}

int join_tokens_use(struct join_tokens *t, const char *hex, const char *name, struct err *err)
{
	struct join_token *token = find(t, hex);

	if (!token)
		return err_set(err, ENOENT, "the join token is not there any more");
	free(token->name);
	token->name = str_dup(name);
	return store(t, err);
}

void join_tokens_free(struct join_tokens *t)
{
	while (t->n)
		drop(t, t->n - 1);
	free(t->list);
	free(t->path);
	*t = (struct join_tokens){0};
}
