/* The lease of a volume: who may write it. Records on the pool, next to the volume, a file for each taking:
 *     .gantry/VOLUME/lease.GENERATION.INCARNATION.UUID.HOST
 * Taking is "say, then look": the own record is made durable as a claim, then everybody's records are read. A newer
 * generation of the domain means that we are stale. An older one that is live is the holder, unless the cluster proved that it
 * cannot write (struct lease_break), or it handed the lease to us. Live is decided by what records say, never by their age:
 * clocks of hosts are not compared. Renewed every LEASE_RENEW_MS by its holder, which so learns that it was overtaken.
 * Safe whatever a server does late: a write or removal that was given up and carried out afterwards hits a record
 * that counts no more (docs/storage.md has the argument; tests/unit/test_lease_model.c checks it).
 * All calls block: thread pool. Calls for one host and volume must not overlap. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/err.h"
#include "storage/pool_fs.h"

#define LEASE_RENEW_MS 2000
#define LEASE_FOLDER ".gantry"   /* in the pool; below it a folder a volume */

struct lease_id {
	const char *volume;          /* name within the pool */
	const char *host;
	const char *domain_uuid;
	const char *domain_name;     /* for messages */
	uint64_t generation;
};
/* An older holder that may be broken although its record is live: the cluster proved that it cannot write. It covers
 * this generation of that host and all generations before it: the log gave out none before the last one was over. */
struct lease_break { const char *host; uint64_t generation; const char *proof; };

/* -EBUSY (text names holder, domain, generation and its age), -ESTALE (a newer generation exists). Idempotent for the same id:
 * taking a lease that we hold or had released/handed over ourselves (aborted migration) with the same generation takes it back,
 * unless a newer generation exists. `brk` may be NULL. */
int lease_acquire(struct pool_fs *fs, const struct lease_id *id, const struct lease_break *brk, struct err *err);
/* By the holder only. -ESTALE: somebody has a newer generation; the holder must stop writing at once. A mere claim of a
 * newer generation that may not break us is no such thing: it will be refused. */
int lease_renew(struct pool_fs *fs, const struct lease_id *id, struct err *err);
/* Also withdraws what an acquisition that failed may have left. No record of ours is success. */
int lease_release(struct pool_fs *fs, const struct lease_id *id, struct err *err);
/* The source of a migration is paused: generation next_generation on next_host may take it. Undone by lease_acquire of the same id. */
int lease_hand_over(struct pool_fs *fs, const struct lease_id *id, const char *next_host, uint64_t next_generation, struct err *err);
/* For people: "held by hostB for domain web1 (generation 3), renewed 2 s ago" or "free". */
int lease_describe(struct pool_fs *fs, const char *volume, struct buf *ret, struct err *err);
/* Removes all records of a volume (before the volume itself is deleted); -EBUSY if one is live. */
int lease_remove_all(struct pool_fs *fs, const char *volume, struct err *err);
