/* The note of one domain in its run folder (PATH_DOMAINS/UUID/state.json): what the agent must know of a QEMU that it
 * finds after its own restart. Written whole or not at all; lost with /run at a power loss, as the QEMU is. The
 * note of a stage is on disk before the stage is reported or acted on. */
#pragma once

#include "agent/daemon/agent_state.h"

struct domain_note {
	Gantry__DomainSpec *spec;
	uint64_t generation;
	enum note_stage stage;
	uint64_t job_id;
	bool ha, left;
	uint64_t running_since_ms;
	char **taps;
};

int domain_note_write(struct domain *d, enum note_stage stage, struct err *err);
/* -ENOENT: no note; -EINVAL: unreadable, with the file's name. */
int domain_note_read(const char *uuid, struct domain_note *ret, struct err *err);
void domain_note_free(struct domain_note *note);
/* Makes the run folder (0700), and removes it with all that is in it. */
int domain_note_make_dir(const char *uuid, struct err *err);
void domain_note_remove_dir(const char *uuid);
/* A uuid that may be the name of a folder: 36 characters, hex and dashes. */
bool domain_note_uuid_valid(const char *uuid);
