/* The simulated world of the replicated log: hosts with disks that lose what was not fsynced, a group
 * communication that behaves as docs/log.md says corosync does (partitions, merges, messages that only a part
 * delivered, queues that survive a freeze), faults from one seed. The log itself is the shipped code. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clusterd/core/clog.h"

#define SIM_HOSTS_MAX 16

enum sim_fault {
	FAULT_POWER_LOSS, FAULT_DAEMON_CRASH, FAULT_DAEMON_HUNG, FAULT_FROZEN_HOST, FAULT_PARTITION, FAULT_FLAP,
	FAULT_SLOW_DISK, FAULT_ALL_DOWN, FAULT_KINDS
};
extern const char *const sim_fault_names[FAULT_KINDS];

enum sim_host_state { HOST_OFF, HOST_NO_DAEMON, HOST_UP, HOST_FROZEN };

struct sim_disk {
	uint64_t promised, commit;
	uint64_t snapshot_index, snapshot_epoch;
	struct buf snapshot;
	uint32_t *voters;
	size_t n_voters;
	Gantry__LogEntry **entries;
	size_t n_entries;
};

struct sim_item {                /* something delivered to a daemon, in order */
	struct sim_item *next;
	bool view;
	uint64_t view_id;
	uint32_t members[SIM_HOSTS_MAX];
	size_t n_members;
	uint32_t sender;
	uint8_t *data;
	size_t len;
};

struct sim_host {
	uint32_t id;
	enum sim_host_state state;
	uint64_t life;               /* +1 with each start or death of the daemon: old events are void */
	bool hung;
	bool slow_disk;
	struct clog *clog;
	struct sim_disk disk;
	struct sim_item *in, **in_end;
	bool in_busy;
	struct sim_item *out, **out_end;
	bool out_busy;
	struct sim_config *config;   /* the configuration that the group layer of this host is in */
	uint64_t disk_free_at;
	uint64_t *done;              /* finished disk batches that the daemon has not heard of */
	size_t n_done;
	/* what the model would be */
	uint64_t applied;
	uint64_t chain;
	uint64_t compacted;
};

struct sim_config {
	uint64_t id;
	uint32_t members[SIM_HOSTS_MAX];
	size_t n;
	bool broken;                 /* a part delivered what the others did not: a new one must follow */
};

struct sim_event;

struct sim_options {
	uint64_t seed;
	unsigned hosts, minutes;
	double fault_rate;           /* faults a simulated second */
	bool trace;
};

struct sim_result {
	char violation[512];         /* empty: none */
	uint64_t faults[FAULT_KINDS];
	uint64_t commits, proposals, unknown, hash, simulated_ms, snapshots, epochs;
};

struct sim {
	struct sim_options o;
	struct sim_result *r;
	uint64_t rng, now_us, seq;
	struct sim_event *heap;
	size_t n_heap, cap_heap;
	struct sim_host host[SIM_HOSTS_MAX + 1];   /* [1..hosts] */
	unsigned part[SIM_HOSTS_MAX + 1];          /* physical component */
	uint64_t next_config, next_command;
	bool quiet;                                /* no more faults */
	/* what was ever applied anywhere: the checker's truth */
	struct sim_truth { uint64_t chain, epoch; } *truth;
	size_t n_truth;
	uint64_t acked_index;
};

/* sim_world.c */
uint64_t sim_random(struct sim *s, uint64_t below);
bool sim_chance(struct sim *s, double p);
void sim_trace(struct sim *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void sim_violation(struct sim *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
typedef void (*sim_fn)(struct sim *s, struct sim_host *h, uint64_t life, uint64_t arg, void *p);
void sim_after(struct sim *s, uint64_t us, sim_fn fn, struct sim_host *h, uint64_t arg, void *p);
/* Runs one simulation from one seed. */
void sim_run(const struct sim_options *o, struct sim_result *r);
/* sim_group.c */
void group_send(struct sim *s, struct sim_host *h, const uint8_t *data, size_t len);
void group_changed(struct sim *s, uint64_t detect_us);   /* membership or cables changed */
void group_kick(struct sim *s, struct sim_host *h);
void group_clear(struct sim_host *h, bool out_too);
/* sim_host.c */
void host_start_daemon(struct sim *s, struct sim_host *h);
void host_stop_daemon(struct sim *s, struct sim_host *h);
void host_deliver(struct sim *s, struct sim_host *h, const struct sim_item *item);
void host_propose(struct sim *s, struct sim_host *h, char kind, uint32_t arg);
void host_tick(struct sim *s, struct sim_host *h);
void host_disk_answers(struct sim *s, struct sim_host *h);
void host_free(struct sim_host *h);
/* sim_faults.c */
void faults_schedule(struct sim *s);
void faults_heal_all(struct sim *s);
