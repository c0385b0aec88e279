/* One record of a lease: its file name and its 512 bytes. Internal to storage/. Pure.
 * The name says who and which: "lease.GENERATION.INCARNATION.UUID.HOST". A name is never used again: each taking of a
 * lease makes a new incarnation (a number that grows with the wall clock), so that a write or a removal that the
 * server carries out late hits only a record that no longer counts.
 * The content says what state: one sector of text with a checksum, so a torn write is seen and counts as a claim. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"
#include "lib/limits.h"

#define LEASE_RECORD_BYTES 512
#define LEASE_UUID_CHARS 36
#define LEASE_FILE_CHARS (6 + 20 + 1 + 20 + 1 + LEASE_UUID_CHARS + 1 + LIMIT_LEASE_HOST_CHARS)

enum lease_state {
	LEASE_CLAIM,     /* wanted; nothing may be written yet, but for others it counts as held */
	LEASE_HELD,
	LEASE_HANDED,    /* the holder has stopped writing; only `next` may take it */
	LEASE_RELEASED,
	LEASE_WITHDRAWN, /* a claim that was never held: as if it were not there */
};

struct lease_owner {
	char host[LIMIT_LEASE_HOST_CHARS + 1]; /* empty: none */
	uint64_t generation;
};

struct lease_record {
	/* From the name. */
	struct lease_owner owner;
	uint64_t incarnation;
	char uuid[LEASE_UUID_CHARS + 1];
	/* From the content. */
	bool readable;
	enum lease_state state;
	struct lease_owner next;   /* LEASE_HANDED */
	struct lease_owner breaks; /* whom its owner was allowed to break */
	char proof[97];
	char domain_name[49];      /* for people */
	uint64_t time_ms;          /* wall clock of the owner: for people, decides nothing */
	uint64_t renewals;
};

/* False: not the name of a record. Sets the first group of fields. */
bool lease_record_parse_name(const char *file, struct lease_record *ret);
/* At most LEASE_FILE_CHARS and the final NUL. */
void lease_record_name(const struct lease_record *r, char ret[LEASE_FILE_CHARS + 1]);
/* Sets the second group; unreadable content gives readable = false and LEASE_CLAIM. */
void lease_record_parse(const void *data, size_t len, struct lease_record *r);
void lease_record_format(const struct lease_record *r, char ret[LEASE_RECORD_BYTES]);
const char *lease_state_word(enum lease_state state);
int lease_record_check_host(const char *host, struct err *err);
int lease_record_check_uuid(const char *uuid, struct err *err);
