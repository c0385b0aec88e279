/* The lease of a volume: who may write it. A record on the pool, next to the volume:
 *     .gantry/VOLUME.lease.GENERATION   (created exclusively; one file a generation)
 * A generation is given to one host only by the cluster's log, so exclusive creation cannot be raced by a rightful
 * other. After creating its own file a host lists the others: a higher one means that it is stale (it withdraws); a
 * lower one that is neither released nor handed to this generation nor proven dead is the holder (it withdraws and
 * names it). Renewed every LEASE_RENEW_MS by its holder. All calls block: thread pool. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/err.h"
#include "storage/pool_fs.h"

#define LEASE_RENEW_MS 5000
#define LEASE_FOLDER ".gantry"   /* in the pool; below it a folder a volume */

struct lease_id {
	const char *volume;          /* name within the pool */
	const char *host;
	const char *domain_uuid;
	const char *domain_name;     /* for messages */
	uint64_t generation;
};
/* An older holder that may be broken although its record is live: the cluster proved that it cannot write. */
struct lease_break { const char *host; uint64_t generation; const char *proof; };

/* -EBUSY (text names holder, domain, generation and its age), -ESTALE (a newer generation exists). Idempotent for the same id:
 * taking a lease that we hold or had released/handed over ourselves (aborted migration) with the same generation takes it back,
 * unless a newer generation exists. `brk` may be NULL. */
int lease_acquire(struct pool_fs *fs, const struct lease_id *id, const struct lease_break *brk, struct err *err);
/* -ESTALE: somebody has a newer generation; the holder must stop writing at once. */
int lease_renew(struct pool_fs *fs, const struct lease_id *id, struct err *err);
int lease_release(struct pool_fs *fs, const struct lease_id *id, struct err *err);
/* The source of a migration is paused: generation next_generation on next_host may take it. Undone by lease_acquire of the same id. */
int lease_hand_over(struct pool_fs *fs, const struct lease_id *id, const char *next_host, uint64_t next_generation, struct err *err);
/* For people: "held by hostB for domain web1 (generation 3), renewed 2 s ago" or "free". */
int lease_describe(struct pool_fs *fs, const char *volume, struct buf *ret, struct err *err);
/* Removes all records of a volume (before the volume itself is deleted); -EBUSY if one is live. */
int lease_remove_all(struct pool_fs *fs, const char *volume, struct err *err);
