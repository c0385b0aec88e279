/* Several messages in one message of corosync, which costs the same for one as for many. A bundle begins with a byte 0,
 * which no message of ours does (protobuf knows no field 0), then for each: its length (4 bytes, big endian), itself.
 * Pure: no I/O. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"

/* Bytes that one more message of len bytes takes in a bundle. */
#define CPG_BUNDLE_PART_BYTES(len) ((len) + 4)

/* Appends a message to a bundle; an empty buffer becomes one. */
void cpg_bundle_add(struct buf *bundle, const void *message, size_t len);
bool cpg_bundle_is(const uint8_t *data, size_t len);
/* The next message of a bundle; *at is 0 before the first. False: there is none more, or the rest is damaged. */
bool cpg_bundle_next(const uint8_t *data, size_t len, size_t *at, const uint8_t **ret, size_t *ret_len);
