#include "storage/lease_record.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <isa-l/crc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"

#define MAGIC "gantry-lease 1 "
#define HEAD_CHARS (sizeof(MAGIC) - 1 + 8 + 1) /* magic, checksum, newline */

static const char *const state_words[] = {
	[LEASE_CLAIM] = "claim",	 [LEASE_HELD] = "held",		  [LEASE_HANDED] = "handed",
	[LEASE_RELEASED] = "released", [LEASE_WITHDRAWN] = "withdrawn",
};

const char *lease_state_word(enum lease_state state)
{
	return state_words[state];
}

/* CRC-32C with its usual inversions, which ISA-L leaves to the caller. */
static uint32_t checksum(const char *data, size_t len)
{
	return ~crc32_iscsi((unsigned char *)data, (int)len, ~0u);
}

static bool is_word(const char *s, size_t len, size_t max, const char *others)
{
	if (len == 0 || len > max)
		return false;
	for (size_t i = 0; i < len; i++) {
		if (!isalnum((unsigned char)s[i]) && !strchr(others, s[i]))
			return false;
	}
	return true;
}

int lease_record_check_host(const char *host, struct err *err)
{
	if (is_word(host, strlen(host), LIMIT_LEASE_HOST_CHARS, "._-") && host[0] != '.')
		return 0;
	return err_set(err, EINVAL, "host name '%.80s' cannot be in a lease: 1 to %d letters, digits and ._-", host,
		       LIMIT_LEASE_HOST_CHARS);
}

int lease_record_check_uuid(const char *uuid, struct err *err)
{
	if (is_word(uuid, strlen(uuid), LEASE_UUID_CHARS, "-"))
		return 0;
	return err_set(err, EINVAL, "'%.80s' is not the uuid of a domain", uuid);
}

/* A decimal number in its only spelling, ended by `end`. Moves *p behind that. */
static bool take_number(const char **p, char end, uint64_t *ret)
{
	char *stop;

	if (!isdigit((unsigned char)**p) || (**p == '0' && isdigit((unsigned char)(*p)[1])))
		return false;
	errno = 0;
	*ret = strtoull(*p, &stop, 10);
	if (errno || *stop != end)
		return false;
	*p = end ? stop + 1 : stop;
	return true;
}

bool lease_record_parse_name(const char *file, struct lease_record *ret)
{
	struct lease_record r = {0};
	const char *p = file, *dot;

	if (strncmp(p, "lease.", 6) != 0)
		return false;
	p += 6;
	if (!take_number(&p, '.', &r.owner.generation) || !take_number(&p, '.', &r.incarnation))
		return false;
	dot = strchr(p, '.');
	if (!dot || !is_word(p, (size_t)(dot - p), LEASE_UUID_CHARS, "-"))
		return false;
	memcpy(r.uuid, p, (size_t)(dot - p));
	if (lease_record_check_host(dot + 1, NULL) < 0)
		return false;
	strcpy(r.owner.host, dot + 1);
	*ret = r;
	return true;
}

void lease_record_name(const struct lease_record *r, char ret[LEASE_FILE_CHARS + 1])
{
	snprintf(ret, LEASE_FILE_CHARS + 1, "lease.%" PRIu64 ".%" PRIu64 ".%s.%s", r->owner.generation, r->incarnation, r->uuid,
		 r->owner.host);
}

static void print_text(FILE *f, const char *key, const char *value)
{
	fprintf(f, "%s=", key);
	for (; *value; value++)
		fputc((unsigned char)*value < ' ' ? '?' : *value, f);
	fputc('\n', f);
}

static void print_owner(FILE *f, const char *key, const struct lease_owner *o)
{
	if (o->host[0])
		fprintf(f, "%s=%" PRIu64 " %s\n", key, o->generation, o->host);
}

void lease_record_format(const struct lease_record *r, char ret[LEASE_RECORD_BYTES])
{
	/* The longest record: 24 of head, 15 state, 105 and 103 text, 2 x 93 owners, 46 numbers: it always fits. */
	char block[LEASE_RECORD_BYTES + 1] = {0};
	FILE *f = fmemopen(block + HEAD_CHARS, sizeof(block) - HEAD_CHARS, "w");
	char head[HEAD_CHARS + 1];

	fprintf(f, "state=%s\n", state_words[r->state]);
	print_owner(f, "next", &r->next);
	print_owner(f, "breaks", &r->breaks);
	if (r->proof[0])
		print_text(f, "proof", r->proof);
	fprintf(f, "time=%" PRIu64 "\nrenewals=%" PRIu64 "\n", r->time_ms, r->renewals);
	print_text(f, "domain", r->domain_name);
	fclose(f);
	for (size_t i = HEAD_CHARS + strlen(block + HEAD_CHARS); i < LEASE_RECORD_BYTES; i++)
		block[i] = i == LEASE_RECORD_BYTES - 1 ? '\n' : ' ';
	snprintf(head, sizeof(head), MAGIC "%08x\n", checksum(block + HEAD_CHARS, LEASE_RECORD_BYTES - HEAD_CHARS));
	memcpy(block, head, HEAD_CHARS);
	memcpy(ret, block, LEASE_RECORD_BYTES);
}

static bool parse_owner(const char *value, struct lease_owner *ret)
{
	struct lease_owner o = {0};

	if (!take_number(&value, ' ', &o.generation) || lease_record_check_host(value, NULL) < 0)
		return false;
	strcpy(o.host, value);
	*ret = o;
	return true;
}

static bool parse_state(const char *value, enum lease_state *ret)
{
	for (size_t i = 0; i < ARRAY_SIZE(state_words); i++) {
		if (strcmp(value, state_words[i]) == 0) {
			*ret = (enum lease_state)i;
			return true;
		}
	}
	return false;
}

/* Unknown keys are left alone: a newer version may add some for people. */
static bool parse_line(const char *key, const char *value, struct lease_record *r)
{
	if (strcmp(key, "state") == 0)
		return parse_state(value, &r->state);
	if (strcmp(key, "next") == 0)
		return parse_owner(value, &r->next);
	if (strcmp(key, "breaks") == 0)
		return parse_owner(value, &r->breaks);
	if (strcmp(key, "time") == 0)
		return take_number(&value, '\0', &r->time_ms);
	if (strcmp(key, "renewals") == 0)
		return take_number(&value, '\0', &r->renewals);
	if (strcmp(key, "proof") == 0)
		snprintf(r->proof, sizeof(r->proof), "%s", value);
	if (strcmp(key, "domain") == 0)
		snprintf(r->domain_name, sizeof(r->domain_name), "%s", value);
	return true;
}

void lease_record_parse(const void *data, size_t len, struct lease_record *r)
{
	char block[LEASE_RECORD_BYTES + 1] = {0}, head[HEAD_CHARS + 1];
	struct lease_record got = *r;
	bool ok = len == LEASE_RECORD_BYTES, has_state = false;

	r->readable = false;
	r->state = LEASE_CLAIM;
	if (!ok)
		return;
	memcpy(block, data, len);
	snprintf(head, sizeof(head), MAGIC "%08x\n", checksum(block + HEAD_CHARS, LEASE_RECORD_BYTES - HEAD_CHARS));
	if (memcmp(block, head, HEAD_CHARS) != 0)
		return;
	for (char *line = block + HEAD_CHARS, *end; ok && (end = strchr(line, '\n')); line = end + 1) {
		char *equals = strchr(line, '=');

		*end = '\0';
		if (!equals)
			continue;
		*equals = '\0';
		has_state |= strcmp(line, "state") == 0;
		ok = parse_line(line, equals + 1, &got);
	}
	if (!ok || !has_state)
		return;
	*r = got;
	r->readable = true;
}
