/* The files that make a host a member of a cluster: /etc/gantry, its keys, corosync's. Written by `cluster init` and
 * `cluster join`; host.yaml always last, because its presence is what starts the daemons. Files are durable when a call returns. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "clusterctl/command.h"
#include "lib/buf.h"

struct host_setup {
	char *name, *address, *bridge, *uplink, *watchdog, *accel;
	uint32_t token_ms;
	bool force;
};

/* From the options --host-name, --address, --bridge, --uplink, --watchdog, --accel, --token, --force; what is left out is looked up on this host. */
int host_setup_read(struct invocation *inv, struct host_setup *ret);
void host_setup_clear(struct host_setup *s);
/* -EPERM unless root. */
int host_setup_check_user(struct err *err);
/* Is this host set up already? */
bool host_setup_exists(void);
/* Removes host.yaml and sets the log aside (--force). */
int host_setup_set_aside(struct err *err);
/* -EEXIST, status 107, if there is somebody else's corosync.conf and no --force; else sets it aside. */
int host_setup_take_corosync(const struct host_setup *s, struct err *err);

struct host_identity {
	struct buf ca, cert, key, authkey, corosync_conf;
	struct buf ca_key; /* empty: this host holds none */
};
void host_identity_free(struct host_identity *id);
/* Everything, then host.yaml. */
int host_setup_write(const struct host_setup *s, const struct host_identity *id, struct err *err);

/* Starts corosync, gantry-agent and clusterd through systemd; without systemd (or with --no-start) says who has to, on stderr. */
int host_services_start(struct invocation *inv, bool no_start);
