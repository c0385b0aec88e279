#include "agent/daemon/agent_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/daemon/agent_pass.h"
#include "agent/daemon/ended_note.h"
#include "hypervisor/qemu_args.h"
#include "lib/buf.h"
#include "lib/limits.h"
#include "lib/paths.h"

static void agent__on_wake(uv_idle_t *idle)
{
	struct agent *a = idle->data;

	uv_idle_stop(idle);
	agent_pass(a);
}

void agent_wake(struct agent *a)
{
	if (!a->stopping)
		uv_idle_start(&a->wake, agent__on_wake);
}

uint64_t agent_now_ms(const struct agent *a)
{
	return uv_now(a->loop);
}

void agent_set_text(char **field, const char *text)
{
	char *copy = text != NULL ? str_dup(text) : NULL;

	free(*field);
	*field = copy;
}

struct domain *agent_find_domain(const struct agent *a, const char *uuid)
{
	for (struct domain *d = a->domains; d != NULL; d = d->next)
		if (strcmp(d->uuid, uuid) == 0)
			return d;
	return NULL;
}

struct domain *agent_find_domain_named(const struct agent *a, const char *name_or_uuid)
{
	for (struct domain *d = a->domains; d != NULL; d = d->next)
		if (strcmp(d->name, name_or_uuid) == 0 || strcmp(d->uuid, name_or_uuid) == 0)
			return d;
	return NULL;
}

int agent_get_domain(struct agent *a, const char *uuid, const char *name, struct domain **ret, struct err *err)
{
	struct domain *d = agent_find_domain(a, uuid);
	size_t n = 0;

	if (d == NULL) {
		for (struct domain *x = a->domains; x != NULL; x = x->next)
			n++;
		if (n >= LIMIT_DOMAINS)
			return err_set(err, ENOSPC, "domain '%s': this host already knows %u domains, the maximum",
				       name, LIMIT_DOMAINS);
		d = mem_alloc(sizeof(*d));
		d->agent = a;
		d->uuid = str_dup(uuid);
		d->name = str_dup(name);
		d->next = a->domains;
		a->domains = d;
	} else if (d->actual == ACTUAL_ABSENT && strcmp(d->name, name) != 0) {
		agent_set_text(&d->name, name);
	}
	*ret = d;
	return 0;
}

static void agent__free_domain(struct domain *d)
{
	free(d->uuid);
	free(d->name);
	free(d->vnc);
	free(d->trouble);
	free(d->end_reason);
	free(d->ended_reason);
	free(d->ready_trouble);
	free(d->io_error);
	strv_free(d->taps);
	if (d->spec != NULL)
		gantry__domain_spec__free_unpacked(d->spec, NULL);
	free(d);
}

void agent_forget_domains(struct agent *a)
{
	for (struct domain **p = &a->domains; *p != NULL;) {
		struct domain *d = *p;
		if (d->actual != ACTUAL_ABSENT || d->pending > 0 || d->qemu != NULL || d->console != NULL ||
		    agent_goal(a, d->uuid) != NULL || agent_migration_goal(a, d->uuid) != NULL ||
		    (a->goals == NULL && d->ended_generation != 0)) {
			p = &d->next;
			continue;
		}
		*p = d->next;
		ended_note_remove(d->uuid);
		agent__free_domain(d);
	}
}

const Gantry__DomainGoal *agent_goal(const struct agent *a, const char *uuid)
{
	if (a->goals == NULL)
		return NULL;
	for (size_t i = 0; i < a->goals->n_domains; i++)
		if (strcmp(a->goals->domains[i]->spec->uuid, uuid) == 0)
			return a->goals->domains[i];
	return NULL;
}

const Gantry__MigrationGoal *agent_migration_goal(const struct agent *a, const char *uuid)
{
	if (a->goals == NULL)
		return NULL;
	for (size_t i = 0; i < a->goals->n_migrations; i++)
		if (strcmp(a->goals->migrations[i]->job->domain_uuid, uuid) == 0)
			return a->goals->migrations[i];
	return NULL;
}

uint64_t agent_memory_used(const struct agent *a)
{
	uint64_t used = 0;

	for (struct domain *d = a->domains; d != NULL; d = d->next)
		if (d->actual != ACTUAL_ABSENT && d->spec != NULL)
			used += d->spec->memory_bytes;
	return used;
}

int agent_accel_for(const struct agent *a, const Gantry__DomainSpec *spec, const char **ret, struct err *err)
{
	const char *wanted = spec->accel != NULL ? spec->accel : "";

	if (!a->accel_known)
		return err_set(err, EAGAIN, "host '%s' is still finding out which accelerator works%s%s", a->conf.name,
			       a->accel_trouble != NULL ? ": " : "", a->accel_trouble != NULL ? a->accel_trouble : "");
	if (strcmp(wanted, "kvm") == 0 && strcmp(a->accel.accel, "kvm") != 0)
		return err_set(err, ENOTSUP,
			       "domain '%s' asks for accel=kvm, which does not work on host '%s' (%s); use accel=auto",
			       spec->name, a->conf.name, a->accel.why);
	*ret = strcmp(wanted, "tcg") == 0 ? "tcg" : a->accel.accel;
	return 0;
}

char *agent_run_dir(const char *uuid)
{
	return str_printf(PATH_DOMAINS "/%s", uuid);
}

char *agent_log_path(const char *name)
{
	return str_printf(PATH_LOG "/qemu-%s.log", name);
}

char *agent_console_log_path(const char *name)
{
	return str_printf(PATH_LOG "/console-%s.log", name);
}
