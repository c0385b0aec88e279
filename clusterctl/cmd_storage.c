/* Pools and volumes. */
#include <errno.h>
#include <string.h>

#include "clusterctl/cmd.h"
#include "clusterctl/job_wait.h"
#include "clusterctl/units.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "proto/pb.h"
#include "proto/pbjson.h"

#define STATUS(x) GANTRY__STATUS__STATUS_##x

int cmd_vol_create(struct invocation *inv)
{
	Gantry__Command command = GANTRY__COMMAND__INIT;
	Gantry__CmdVolumeCreate body = GANTRY__CMD_VOLUME_CREATE__INIT;
	Gantry__Volume volume = GANTRY__VOLUME__INIT;
	_cleanup_free_ char *pool = NULL, *name = NULL, *done = str_printf("%s is created", inv->args[0]);
	const char *format = invocation_option(inv, "format");
	int rc = cmd_split_volume(inv, inv->args[0], &pool, &name);

	if (rc == 0)
		rc = units_parse_bytes("the size", inv->args[1], 0, &volume.size_bytes, &inv->err);
	if (rc == 0 && volume.size_bytes == 0)
		rc = err_set_status(&inv->err, EINVAL, STATUS(USAGE), "the size of %s is 0", inv->args[0]);
	if (rc == 0 && format != NULL && strcmp(format, "raw") != 0 && strcmp(format, "qcow2") != 0)
		rc = err_set_status(&inv->err, EINVAL, STATUS(USAGE), "format '%.40s' is unknown; there are raw and qcow2", format);
	if (rc < 0)
		return rc;
	volume.pool = pool;
	volume.name = name;
	volume.format = format && strcmp(format, "raw") == 0 ? GANTRY__DISK_FORMAT__DISK_FORMAT_RAW :
							       GANTRY__DISK_FORMAT__DISK_FORMAT_QCOW2;
	body.volume = &volume;
	command.body_case = GANTRY__COMMAND__BODY_VOLUME_CREATE;
	command.volume_create = &body;
	return job_run(inv, &command, done);
}

int cmd_vol_delete(struct invocation *inv)
{
	Gantry__Command command = GANTRY__COMMAND__INIT;
	Gantry__CmdVolumeDelete body = GANTRY__CMD_VOLUME_DELETE__INIT;
	_cleanup_free_ char *pool = NULL, *name = NULL, *done = str_printf("%s is deleted", inv->args[0]);
	int rc = cmd_split_volume(inv, inv->args[0], &pool, &name);

	if (rc < 0)
		return rc;
	body.pool = pool;
	body.name = name;
	command.body_case = GANTRY__COMMAND__BODY_VOLUME_DELETE;
	command.volume_delete = &body;
	return job_run(inv, &command, done);
}

static char *volume_users(const Gantry__CtlModel *m, const Gantry__Volume *v)
{
	struct buf users = {0};

	for (size_t i = 0; i < m->model->n_domains; i++) {
		const Gantry__DomainSpec *spec = m->model->domains[i]->spec;
		for (size_t j = 0; j < spec->n_disks; j++)
			if (strcmp(spec->disks[j]->pool, v->pool) == 0 && strcmp(spec->disks[j]->volume, v->name) == 0)
				buf_printf(&users, "%s%s", users.len ? ", " : "", spec->name);
	}
	char *text = str_dup(users.len ? buf_str(&users) : "-");
	buf_free(&users);
	return text;
}

int cmd_vol_list(struct invocation *inv)
{
	static const struct output_column columns[] = {{"Volume", false}, {"Format", false}, {"Size", true},
						       {"State", false},  {"Used by", false}};
	const char *pool = inv->n_args ? inv->args[0] : NULL;
	Gantry__CtlModel *m = NULL;
	int rc = cmd_model(inv, false, &m);

	if (rc < 0)
		return rc;
	struct output_table *t = output_table_new(inv->format, columns, ARRAY_SIZE(columns));
	for (size_t i = 0; i < m->model->n_volumes; i++) {
		const Gantry__Volume *v = m->model->volumes[i];
		if (pool != NULL && strcmp(pool, v->pool) != 0)
			continue;
		char *const cells[] = {
			str_printf("%s/%s", v->pool, v->name),
			str_dup(pbjson_enum_word(&gantry__disk_format__descriptor, v->format)),
			units_format_bytes(v->size_bytes),
			str_dup(pbjson_enum_word(&gantry__volume_state__descriptor, v->state)),
			volume_users(m, v),
		};
		output_table_row(t, cells, pbjson_from_message(&v->base, true));
	}
	rc = output_table_finish(t, &inv->err);
	gantry__ctl_model__free_unpacked(m, NULL);
	return rc;
}

/* dir:/path or nfs://ADDRESS/EXPORT. */
static int parse_target(struct invocation *inv, const char *text, Gantry__Pool *pool)
{
	if (strncmp(text, "dir:/", 5) == 0) {
		pool->type = GANTRY__POOL_TYPE__POOL_TYPE_DIR;
		pool->target = (char *)text + 4;
		pool->shared = invocation_option(inv, "shared") != NULL;
		return 0;
	}
	if (strncmp(text, "nfs://", 6) == 0 && strchr(text + 6, '/') > text + 6) {
		pool->type = GANTRY__POOL_TYPE__POOL_TYPE_NFS;
		pool->target = (char *)text;
		pool->shared = true;
		return 0;
	}
	return err_set_status(&inv->err, EINVAL, STATUS(USAGE), "'%.100s' has to be dir:/PATH or nfs://ADDRESS/EXPORT[/PATH]", text);
}

int cmd_pool_add(struct invocation *inv)
{
	Gantry__Command command = GANTRY__COMMAND__INIT;
	Gantry__CmdPoolAdd body = GANTRY__CMD_POOL_ADD__INIT;
	Gantry__Pool pool = GANTRY__POOL__INIT;
	_cleanup_free_ char *done = str_printf("pool %s is there", inv->args[0]);
	int rc = parse_target(inv, inv->args[1], &pool);

	if (rc < 0)
		return rc;
	pool.name = (char *)inv->args[0];
	body.pool = &pool;
	command.body_case = GANTRY__COMMAND__BODY_POOL_ADD;
	command.pool_add = &body;
	return job_run(inv, &command, done);
}

int cmd_pool_delete(struct invocation *inv)
{
	Gantry__Command command = GANTRY__COMMAND__INIT;
	Gantry__CmdPoolRemove body = GANTRY__CMD_POOL_REMOVE__INIT;
	_cleanup_free_ char *done = str_printf("pool %s is forgotten; what is stored in it stays", inv->args[0]);

	body.name = (char *)inv->args[0];
	command.body_case = GANTRY__COMMAND__BODY_POOL_REMOVE;
	command.pool_remove = &body;
	return job_run(inv, &command, done);
}

/* How a pool looks from the hosts: the reports, and one line for people. */
static char *pool_condition(const Gantry__CtlModel *m, const Gantry__Pool *p, char **ret_free, json_t *json)
{
	struct buf text = {0};
	uint64_t free_bytes = 0;
	size_t ok = 0;

	for (size_t i = 0; i < m->n_soft; i++) {
		for (size_t j = 0; j < m->soft[i]->n_pools; j++) {
			const Gantry__PoolReport *report = m->soft[i]->pools[j];
			if (strcmp(report->name, p->name) != 0)
				continue;
			json_t *item = pbjson_from_message(&report->base, true);
			json_object_set_new(item, "node_id", json_integer(m->soft[i]->node_id));
			json_array_append_new(json, item);
			ok += report->ok;
			if (report->ok && (free_bytes == 0 || report->free_bytes < free_bytes))
				free_bytes = report->free_bytes;
			if (!report->ok)
				buf_printf(&text, "%snode %u: %s", text.len ? "; " : "", m->soft[i]->node_id, report->reason);
		}
	}
	*ret_free = ok ? units_format_bytes(free_bytes) : str_dup("-");
	char *result = text.len ? str_dup(buf_str(&text)) :
		       ok	? str_printf("ok on %zu host%s", ok, ok == 1 ? "" : "s") :
				  str_dup("not reported yet");
	buf_free(&text);
	return result;
}

int cmd_pool_list(struct invocation *inv)
{
	static const struct output_column columns[] = {{"Pool", false}, {"Type", false}, {"Shared", false},
						       {"Free", true},	{"Target", false}, {"Condition", false}};
	Gantry__CtlModel *m = NULL;
	int rc = cmd_model(inv, false, &m);

	if (rc < 0)
		return rc;
	struct output_table *t = output_table_new(inv->format, columns, ARRAY_SIZE(columns));
	for (size_t i = 0; i < m->model->n_pools; i++) {
		const Gantry__Pool *p = m->model->pools[i];
		json_t *item = pbjson_from_message(&p->base, true), *reports = json_array();
		char *free_text, *condition = pool_condition(m, p, &free_text, reports);
		char *const cells[] = {
			str_dup(p->name), str_dup(pbjson_enum_word(&gantry__pool_type__descriptor, p->type)),
			str_dup(p->shared ? "yes" : "no"), free_text, str_dup(p->target), condition,
		};
		json_object_set_new(item, "hosts", reports);
		output_table_row(t, cells, item);
	}
	rc = output_table_finish(t, &inv->err);
	gantry__ctl_model__free_unpacked(m, NULL);
	return rc;
}
