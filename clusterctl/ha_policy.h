/* A domain's HA policy as people write and read it. */
#pragma once

#include <stdbool.h>

#include "clusterctl/command.h"
#include "proto/model.pb-c.h"

/* A copy of the domain's policy, of the defaults if it has none yet. Owner: caller (gantry__ha_policy__free_unpacked). */
Gantry__HaPolicy *ha_policy_of(const Gantry__Domain *d);
/* Changes what the command's options name. *ret_changed: one was there. -EINVAL, naming the option. */
int ha_policy_change(const struct invocation *inv, Gantry__HaPolicy *p, bool *ret_changed, struct err *err);
/* "running", "agent", "port 10.0.0.5:80", "time 30 s". Owner: caller. */
char *ha_policy_ready_text(const Gantry__HaPolicy *p);
/* All of it in a sentence. Owner: caller. */
char *ha_policy_text(const Gantry__HaPolicy *p);
