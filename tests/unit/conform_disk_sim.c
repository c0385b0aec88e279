/* The simulator's disk, over the simulator's clock. Death is what a crash of the simulated clusterd does to it. */
#include "tests/unit/conform_disk.h"

#include <errno.h>
#include <stdlib.h>

#include "tests/sim/sim.h"

struct simulated_disk {
	struct sim s;              /* first: an answer finds the rest by it */
	struct sim_result r;
	struct sim_disk *disk;
	disk_side_answer answer;
	void *data;
};

static void on_done(struct sim *s, struct sim_host *h, bool snapshot, uint64_t serial_or_index, int rc)
{
	struct simulated_disk *d = (struct simulated_disk *)s;

	d->answer(d->data, snapshot, serial_or_index, rc);
}

static void *sim_make(uint64_t seed, disk_side_answer answer, void *data)
{
	struct simulated_disk *d = mem_alloc(sizeof(*d));

	d->s.r = &d->r;
	d->s.rng = seed * 0x9E3779B97F4A7C15ull + 1;
	d->s.host[1].id = 1;
	d->answer = answer;
	d->data = data;
	d->disk = disk_new(on_done);
	return d;
}

static void sim_free(void *disk)
{
	struct simulated_disk *d = disk;

	sim_events_drop(&d->s);
	disk_free(d->disk);
	free(d);
}

static int sim_begin(void *disk, struct clog_disk_state *ret, struct buf *ret_snapshot, bool *ret_forgetful)
{
	struct simulated_disk *d = disk;

	if (disk_fault(d->disk))
		return -EBADMSG;
	disk_load(d->disk, ret, ret_snapshot, ret_forgetful);
	return 0;
}

static void sim_die(void *disk)
{
	struct simulated_disk *d = disk;

	d->s.host[1].life[LIFE_CLUSTERD]++;
	disk_cut(&d->s, d->disk);
}

static void sim_write(void *disk, const struct clog_disk_batch *b)
{
	struct simulated_disk *d = disk;

	disk_write(&d->s, &d->s.host[1], d->disk, b);
}

static void sim_snapshot(void *disk, uint64_t index, uint64_t epoch, const void *data, size_t len, const uint32_t *voters, size_t n_voters)
{
	struct simulated_disk *d = disk;

	disk_snapshot(&d->s, &d->s.host[1], d->disk, index, epoch, data, len, voters, n_voters);
}

static void sim_remember(void *disk)
{
	struct simulated_disk *d = disk;

	disk_remember(&d->s, &d->s.host[1], d->disk);
}

static void sim_mark_forgetful(void *disk)
{
	disk_mark_forgetful(((struct simulated_disk *)disk)->disk);
}

static void sim_go_on(void *disk, bool until_quiet)
{
	struct simulated_disk *d = disk;

	sim_run_until(&d->s, d->s.now_us + sim_random(&d->s, 600));
	while (until_quiet && d->s.n_heap)
		sim_run_until(&d->s, d->s.now_us + 1000);
}

static void sim_set_full(void *disk, bool full)
{
	disk_set_mood(((struct simulated_disk *)disk)->disk, full ? DISK_FULL : DISK_WORKS);
}

const struct disk_side disk_side_sim = {
	.name = "sim_disk.c", .kept = SIM_DISK_KEPT, .seeds = 500, .make = sim_make, .free = sim_free, .begin = sim_begin, .die = sim_die,
	.write = sim_write, .snapshot = sim_snapshot, .remember = sim_remember, .mark_forgetful = sim_mark_forgetful, .go_on = sim_go_on,
	.set_full = sim_set_full,
};
