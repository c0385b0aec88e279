/* What this host can do: capacity, versions, accelerator. */
#pragma once

#include "agent/daemon/agent_state.h"

/* Begins to find out which accelerator works; tried again until it is known. */
void host_info_probe(struct agent *a);
uint64_t host_info_memory(const struct agent *a); /* bytes that domains may use */
uint64_t host_info_memory_free(const struct agent *a);
/* For the report. Owner: caller. */
Gantry__Host *host_info_message(const struct agent *a);
