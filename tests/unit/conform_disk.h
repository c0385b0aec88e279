/* The disk under a log as its user sees it: what test_conform_disk.c checks on the real one (clusterd/daemon/store.c over SQLite,
 * conform_disk_real.c) and on the simulator's (tests/sim/sim_disk.c, conform_disk_sim.c). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "clusterd/core/clog.h"
#include "lib/buf.h"

/* Each batch and each own snapshot is answered, in order; a remember is not. Only from within go_on(). */
typedef void (*disk_side_answer)(void *data, bool snapshot, uint64_t serial_or_index, int rc);

struct disk_side {
	const char *name;
	uint64_t kept;             /* entries kept behind an own snapshot */
	unsigned seeds;            /* of the random runs */
	/* A disk with nothing on it; no process uses it yet. */
	void *(*make)(uint64_t seed, disk_side_answer answer, void *data);
	void (*free)(void *disk);
	/* A process begins: what is there, as for clog_new(). Negative: it is not sound, and no process runs. */
	int (*begin)(void *disk, struct clog_disk_state *ret, struct buf *ret_snapshot, bool *ret_forgetful);
	/* The process and the power are gone; of what was not answered some suffix is lost. */
	void (*die)(void *disk);
	void (*write)(void *disk, const struct clog_disk_batch *b);
	void (*snapshot)(void *disk, uint64_t index, uint64_t epoch, const void *data, size_t len, const uint32_t *voters, size_t n_voters);
	void (*remember)(void *disk);
	/* Before the first write of a process. */
	void (*mark_forgetful)(void *disk);
	/* A little while, or until nothing is under way. */
	void (*go_on)(void *disk, bool until_quiet);
	/* What would need more room fails. */
	void (*set_full)(void *disk, bool full);
};

extern const struct disk_side disk_side_real, disk_side_sim;
