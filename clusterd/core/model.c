#include "clusterd/core/model.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "clusterd/core/model_internal.h"

void model_init(struct model *m)
{
	*m = (struct model){.state = PB_NEW(Gantry__ClusterModel, gantry__cluster_model__init), .use = model__use_new()};
	m->state->format = MODEL_FORMAT;
	m->state->next_job_id = 1;
	m->state->next_event_id = 1;
	m->state->next_domain_id = 1;
}

void model_free(struct model *m)
{
	model__requests_free(m);
	free(m->use);
	m->use = NULL;
	if (m->state)
		gantry__cluster_model__free_unpacked(m->state, NULL);
	m->state = NULL;
}

void model_snapshot(const struct model *m, struct buf *out)
{
	pb_pack(m->state, out);
}

int model_install(struct model *m, const uint8_t *data, size_t len, struct err *err)
{
	Gantry__ClusterModel *s = gantry__cluster_model__unpack(NULL, len, data);

	if (!s)
		return err_set(err, EBADMSG, "the snapshot of the cluster's state cannot be read (%zu bytes)", len);
	if (s->format > MODEL_FORMAT) {
		uint32_t format = s->format;

		gantry__cluster_model__free_unpacked(s, NULL);
		return err_set(err, ENOTSUP, "the cluster's state has format %u, this program knows %u: upgrade gantry on this host",
			       format, MODEL_FORMAT);
	}
	model_free(m);
	m->state = s;
	/* Of a release without policies. */
	for (size_t i = 0; i < s->n_domains; i++)
		if (!s->domains[i]->policy)
			model__policy_default(s->domains[i]);
	m->use = model__use_new();
	m->touched = true;
	return 0;
}

/* ---- look-ups ------------------------------------------------------------ */

Gantry__Host *model_host(const struct model *m, const char *name)
{
	for (size_t i = 0; i < m->state->n_hosts; i++)
		if (model__is(m->state->hosts[i]->name, name))
			return m->state->hosts[i];
	return NULL;
}

Gantry__Host *model_host_by_node(const struct model *m, uint32_t node_id)
{
	for (size_t i = 0; i < m->state->n_hosts; i++)
		if (m->state->hosts[i]->node_id == node_id)
			return m->state->hosts[i];
	return NULL;
}

Gantry__Domain *model__domain_by_uuid(const struct model *m, const char *uuid)
{
	const Gantry__ClusterModel *s = m->state;
	size_t *hint = m->use ? &m->use->hint : NULL;

	/* One command asks several times for the same one. */
	if (hint && *hint < s->n_domains && model__is(s->domains[*hint]->spec->uuid, uuid))
		return s->domains[*hint];
	for (size_t i = 0; i < s->n_domains; i++) {
		if (!model__is(s->domains[i]->spec->uuid, uuid))
			continue;
		if (hint)
			*hint = i;
		return s->domains[i];
	}
	return NULL;
}

Gantry__Domain *model_domain(const struct model *m, const char *key)
{
	const Gantry__ClusterModel *s = m->state;
	Gantry__Domain *d;
	char *end = NULL;
	unsigned long id;

	if (model__empty(key))
		return NULL;
	for (size_t i = 0; i < s->n_domains; i++)
		if (model__is(s->domains[i]->spec->name, key))
			return s->domains[i];
	d = model__domain_by_uuid(m, key);
	if (d || !isdigit((unsigned char)*key))
		return d;
	id = strtoul(key, &end, 10);
	for (size_t i = 0; !*end && i < s->n_domains; i++)
		if (s->domains[i]->id == id)
			return s->domains[i];
	return NULL;
}

Gantry__Pool *model_pool(const struct model *m, const char *name)
{
	for (size_t i = 0; i < m->state->n_pools; i++)
		if (model__is(m->state->pools[i]->name, name))
			return m->state->pools[i];
	return NULL;
}

Gantry__Volume *model_volume(const struct model *m, const char *pool, const char *name)
{
	for (size_t i = 0; i < m->state->n_volumes; i++)
		if (model__is(m->state->volumes[i]->pool, pool) && model__is(m->state->volumes[i]->name, name))
			return m->state->volumes[i];
	return NULL;
}

Gantry__Job *model_job(const struct model *m, uint64_t id)
{
	size_t low = 0, high = m->state->n_jobs;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (m->state->jobs[mid]->id < id)
			low = mid + 1;
		else
			high = mid;
	}
	return low < m->state->n_jobs && m->state->jobs[low]->id == id ? m->state->jobs[low] : NULL;
}

bool model__is_voter(const Gantry__ClusterModel *s, uint32_t node_id)
{
	for (size_t i = 0; i < s->n_voters; i++)
		if (s->voters[i] == node_id)
			return true;
	return false;
}

bool model__name_ok(const char *name)
{
	size_t len = strlen(name);

	if (!len || len > LIMIT_NAME_CHARS || *name == '.' || *name == '-')
		return false;
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)name[i]) && !strchr("._-+:@", name[i]))
			return false;
	return true;
}

const char *model__host_word(Gantry__HostState state)
{
	switch (state) {
	case HOST(ONLINE):
		return "online";
	case HOST(LOST):
		return "lost";
	case HOST(FENCING):
		return "lost, being fenced";
	case HOST(DEAD):
		return "dead";
	case HOST(JOINING):
		return "not seen yet";
	default:
		return "in an unknown state";
	}
}

const char *model__domain_word(Gantry__DomainState state)
{
	switch (state) {
	case DOM(STOPPED):
		return "stopped";
	case DOM(STARTING):
		return "starting";
	case DOM(RUNNING):
		return "running";
	case DOM(PAUSED):
		return "paused";
	case DOM(STOPPING):
		return "stopping";
	case DOM(CRASHED):
		return "crashed";
	case DOM(FAILED):
		return "failed";
	case DOM(WAITING):
		return "waiting for a host";
	default:
		return "in an unknown state";
	}
}

/* ---- refusals and events -------------------------------------------------- */

int model__refuse(struct model_apply *a, Gantry__Status status, const char *fmt, ...)
{
	char text[ERR_TEXT_MAX];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	a->result->status = status;
	pb_set_string(&a->result->text, text);
	return (int)status;
}

void model__event(struct model_apply *a, Gantry__EventSeverity severity, const char *subject_kind, const char *subject_name,
		  const char *kind, const char *fmt, ...)
{
	Gantry__Event *e = PB_NEW(Gantry__Event, gantry__event__init);
	char text[ERR_TEXT_MAX], subject[LIMIT_NAME_CHARS + 32];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	snprintf(subject, sizeof(subject), "%s%s%s", subject_kind, *subject_name ? " " : "", subject_name);
	e->id = a->s->next_event_id++;
	/* The log's own first command of an epoch has no clock: it comes right after what is there. */
	e->time_ms = a->cmd->time_ms || !a->s->n_events ? a->cmd->time_ms : a->s->events[a->s->n_events - 1]->time_ms;
	e->log_index = a->index;
	e->severity = severity;
	pb_set_string(&e->subject, subject);
	pb_set_string(&e->kind, kind);
	pb_set_string(&e->text, text);
	PB_APPEND(a->s, events, e);
	if (a->s->n_events > LIMIT_EVENTS_KEPT)
		PB_REMOVE(a->s, events, 0);
}

/* ---- applying ------------------------------------------------------------- */

static int event_note(struct model_apply *a, const Gantry__CmdEventNote *c)
{
	if (model__empty(c->kind) || strlen(c->kind) > LIMIT_NAME_CHARS || strlen(c->subject) > LIMIT_NAME_CHARS)
		return model__refuse(a, STATUS(BAD_DATA), "a note needs a kind and a subject of at most %d characters", LIMIT_NAME_CHARS);
	if (!protobuf_c_enum_descriptor_get_value(&gantry__event_severity__descriptor, c->severity))
		return model__refuse(a, STATUS(BAD_DATA), "a note of an unknown severity (%d)", c->severity);
	model__event(a, c->severity, c->subject, "", c->kind, "%s", c->text);
	return 0;
}

/* What counts is whether the body is known; the versions of bodies are in Command.version. */
static int dispatch_domains(struct model_apply *a)
{
	const Gantry__Command *c = a->cmd;

	switch (c->body_case) {
	case GANTRY__COMMAND__BODY_DOMAIN_CREATE:
		return model__domain_create(a, c->domain_create);
	case GANTRY__COMMAND__BODY_DOMAIN_START:
		return model__domain_start(a, c->domain_start);
	case GANTRY__COMMAND__BODY_DOMAIN_UNDEFINE:
		return model__domain_undefine(a, c->domain_undefine);
	case GANTRY__COMMAND__BODY_DOMAIN_PLACE:
		return model__domain_place(a, c->domain_place);
	case GANTRY__COMMAND__BODY_DOMAIN_WAIT:
		return model__domain_wait(a, c->domain_wait);
	case GANTRY__COMMAND__BODY_DOMAIN_GOAL:
		return model__domain_goal(a, c->domain_goal);
	case GANTRY__COMMAND__BODY_DOMAIN_REPORT:
		return model__domain_report(a, c->domain_report);
	case GANTRY__COMMAND__BODY_DOMAIN_EVICT:
		return model__domain_evict(a, c->domain_evict);
	case GANTRY__COMMAND__BODY_HA_SET:
		return model__ha_set(a, c->ha_set);
	case GANTRY__COMMAND__BODY_MIGRATE_START:
		return model__migrate_start(a, c->migrate_start);
	case GANTRY__COMMAND__BODY_JOB_STAGE:
		return model__job_stage(a, c->job_stage);
	case GANTRY__COMMAND__BODY_MIGRATE_COMMIT:
		return model__migrate_commit(a, c->migrate_commit);
	case GANTRY__COMMAND__BODY_MIGRATE_ABORT:
		return model__migrate_abort(a, c->migrate_abort);
	case GANTRY__COMMAND__BODY_JOB_CANCEL:
		return model__job_cancel(a, c->job_cancel);
	case GANTRY__COMMAND__BODY_JOB_DONE:
		return model__job_done(a, c->job_done);
	default:
		return model__refuse(a, STATUS(BAD_DATA), "a command without a body");
	}
}

static int dispatch(struct model_apply *a)
{
	const Gantry__Command *c = a->cmd;

	switch (c->body_case) {
	case GANTRY__COMMAND__BODY_EPOCH_START:
		return model__epoch_start(a, c->epoch_start);
	case GANTRY__COMMAND__BODY_CLUSTER_INIT:
		return model__cluster_init(a, c->cluster_init);
	case GANTRY__COMMAND__BODY_HOST_ADMIT:
		return model__host_admit(a, c->host_admit);
	case GANTRY__COMMAND__BODY_HOST_ADD:
		return model__host_add(a, c->host_add);
	case GANTRY__COMMAND__BODY_HOST_REMOVE:
		return model__host_remove(a, c->host_remove);
	case GANTRY__COMMAND__BODY_HOST_STATE:
		return model__host_state(a, c->host_state);
	case GANTRY__COMMAND__BODY_HOST_INFO:
		return model__host_info(a, c->host_info);
	case GANTRY__COMMAND__BODY_FENCE_SET:
		return model__fence_set(a, c->fence_set);
	case GANTRY__COMMAND__BODY_FENCE_CONFIRM:
		return model__fence_confirm(a, c->fence_confirm);
	case GANTRY__COMMAND__BODY_POOL_ADD:
		return model__pool_add(a, c->pool_add);
	case GANTRY__COMMAND__BODY_POOL_REMOVE:
		return model__pool_remove(a, c->pool_remove);
	case GANTRY__COMMAND__BODY_VOLUME_CREATE:
		return model__volume_create(a, c->volume_create);
	case GANTRY__COMMAND__BODY_VOLUME_DELETE:
		return model__volume_delete(a, c->volume_delete);
	case GANTRY__COMMAND__BODY_VOLUME_REPORT:
		return model__volume_report(a, c->volume_report);
	case GANTRY__COMMAND__BODY_FENCE_RUN:
		return model__fence_run(a, c->fence_run);
	case GANTRY__COMMAND__BODY_HA_ARM:
		return model__ha_arm(a, c->ha_arm);
	case GANTRY__COMMAND__BODY_CLUSTER_SET:
		return model__cluster_set(a, c->cluster_set);
	case GANTRY__COMMAND__BODY_EVENT_NOTE:
		return event_note(a, c->event_note);
	default:
		return dispatch_domains(a);
	}
}

/* ---- whom does it concern? ------------------------------------------------ */

static bool concerns_domain(const struct model_apply *a, const Gantry__Domain *d)
{
	const Gantry__Job *job = d ? model__domain_job(a->m, d) : NULL;

	if (d && model__is(d->host, a->m->own_host))
		return true;
	return job && (model__is(job->source, a->m->own_host) || model__is(job->destination, a->m->own_host));
}

static bool concerns_task(const struct model_apply *a, uint64_t id)
{
	const Gantry__Job *job = model_job(a->m, id);

	return job && (model__is(job->source, a->m->own_host) || model__is(job->destination, a->m->own_host));
}

/* Asked before and after the command is carried out: a domain that leaves concerns its old host, one that comes its new one. */
static bool concerns_own_host(const struct model_apply *a)
{
	const Gantry__Command *c = a->cmd;

	switch (c->body_case) {
	case GANTRY__COMMAND__BODY_EVENT_NOTE:
	case GANTRY__COMMAND__BODY_FENCE_SET:
	case GANTRY__COMMAND__BODY_DOMAIN_WAIT:
		return false;
	case GANTRY__COMMAND__BODY_HOST_INFO:
		return c->host_info->host && model__is(c->host_info->host->name, a->m->own_host);
	case GANTRY__COMMAND__BODY_VOLUME_CREATE:
		return c->volume_create->volume && model__is(c->volume_create->volume->host, a->m->own_host);
	case GANTRY__COMMAND__BODY_VOLUME_REPORT:
		return model__is(c->volume_report->host, a->m->own_host);
	case GANTRY__COMMAND__BODY_DOMAIN_CREATE:
		return false;
	case GANTRY__COMMAND__BODY_DOMAIN_START:
		return concerns_domain(a, model_domain(a->m, c->domain_start->domain));
	case GANTRY__COMMAND__BODY_DOMAIN_PLACE:
		return concerns_domain(a, model__domain_by_uuid(a->m, c->domain_place->uuid));
	case GANTRY__COMMAND__BODY_DOMAIN_GOAL:
		return concerns_domain(a, model_domain(a->m, c->domain_goal->domain));
	case GANTRY__COMMAND__BODY_DOMAIN_REPORT:
		return model__is(c->domain_report->host, a->m->own_host) || concerns_domain(a, model__domain_by_uuid(a->m, c->domain_report->uuid));
	case GANTRY__COMMAND__BODY_MIGRATE_START:
		return concerns_domain(a, model_domain(a->m, c->migrate_start->domain));
	case GANTRY__COMMAND__BODY_JOB_STAGE:
		return concerns_task(a, c->job_stage->job_id);
	case GANTRY__COMMAND__BODY_MIGRATE_COMMIT:
		return concerns_task(a, c->migrate_commit->job_id);
	case GANTRY__COMMAND__BODY_MIGRATE_ABORT:
		return concerns_task(a, c->migrate_abort->job_id);
	case GANTRY__COMMAND__BODY_JOB_CANCEL:
		return concerns_task(a, c->job_cancel->job_id);
	case GANTRY__COMMAND__BODY_JOB_DONE:
		return concerns_task(a, c->job_done->job_id);
	default:
		return true;
	}
}

static int apply_checked(struct model_apply *a)
{
	const Gantry__Command *c = a->cmd;

	if (c->epoch && c->epoch < a->epoch && !MUTANT(stale_epoch_obeyed))
		return model__refuse(a, STATUS(RETRY), "decided in epoch %llu, which is over: epoch %llu decides again",
				     (unsigned long long)c->epoch, (unsigned long long)a->epoch);
	if (!a->s->n_hosts && c->body_case != GANTRY__COMMAND__BODY_CLUSTER_INIT &&
	    c->body_case != GANTRY__COMMAND__BODY_EPOCH_START)
		return model__refuse(a, STATUS(NO_SUCH), "there is no cluster yet: make one with 'clusterctl cluster init'");
	return dispatch(a);
}

static void apply_watched(struct model_apply *a)
{
	bool touched = a->m->own_host && !a->m->touched && concerns_own_host(a);
	int rc = apply_checked(a);

	/* A refusal leaves no trace. */
	if (a->m->own_host && !rc && !a->m->touched)
		a->m->touched = touched || concerns_own_host(a);
}

/* The log counts a membership command from its place in the log on, whether the model likes it or not: the model's
 * voters follow the same rule, so that both always name the same. */
static void voters_follow(Gantry__ClusterModel *s, const uint8_t *command, size_t len)
{
	uint32_t *voters = NULL;
	size_t n = 0;

	if (!model_voters_of(command, len, s->voters, s->n_voters, &voters, &n))
		return;
	free(s->voters);
	s->voters = voters;
	s->n_voters = n;
}

static int command_known(const Gantry__Command *cmd, uint64_t index, struct err *err)
{
	/* A body that we do not know is kept by protobuf-c among the unknown fields. */
	if (cmd->version > MODEL_COMMAND_VERSION ||
	    (cmd->body_case == GANTRY__COMMAND__BODY__NOT_SET && cmd->base.n_unknown_fields))
		return err_set(err, ENOTSUP,
			       "log entry %llu is a command of version %u that this program (version %u) does not know: "
			       "upgrade gantry on this host",
			       (unsigned long long)index, cmd->version, MODEL_COMMAND_VERSION);
	return 0;
}

int model_apply(struct model *m, uint64_t index, uint64_t epoch, const uint8_t *command, size_t len,
		Gantry__CommandResult **ret, struct err *err)
{
	static const Gantry__Command no_command = GANTRY__COMMAND__INIT;
	Gantry__Command *cmd = gantry__command__unpack(NULL, len, command);
	const Gantry__CommandResult *first;
	struct model_apply a = {.m = m, .s = m->state, .cmd = cmd ? cmd : &no_command, .index = index, .epoch = epoch};
	int rc = cmd ? command_known(cmd, index, err) : 0;

	if (rc < 0) {
		gantry__command__free_unpacked(cmd, NULL);
		return rc;
	}
	assert(index > m->state->applied_index && epoch >= m->state->applied_epoch);
	m->state->applied_index = index;
	m->state->applied_epoch = epoch;
	first = model__request_find(m, a.cmd);
	if (first) {
		*ret = pb_clone(first);
	} else {
		a.result = PB_NEW(Gantry__CommandResult, gantry__command_result__init);
		a.result->log_index = index;
		if (!cmd)
			model__refuse(&a, STATUS(BAD_DATA), "a command of %zu bytes that cannot be read", len);
		else
			apply_watched(&a);
		model__request_keep(m, a.cmd, a.result);
		*ret = a.result;
	}
	if (cmd) {
		voters_follow(m->state, command, len);
		gantry__command__free_unpacked(cmd, NULL);
	}
	return 0;
}

int model_check(const struct model *m, const Gantry__Command *command, struct err *err)
{
	struct model copy = {.state = pb_clone(m->state)};
	Gantry__CommandResult *result = NULL;
	struct buf packed = {0};
	int rc;

	pb_pack(command, &packed);
	rc = model_apply(&copy, m->state->applied_index + 1, m->state->applied_epoch, packed.data, packed.len, &result, err);
	if (!rc && result->status != STATUS(OK))
		rc = err_set_status(err, EINVAL, (int)result->status, "%s", result->text);
	if (result)
		gantry__command_result__free_unpacked(result, NULL);
	buf_free(&packed);
	model_free(&copy);
	return rc;
}
