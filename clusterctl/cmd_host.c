/* Hosts, and the state of the cluster. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "clusterctl/cmd.h"
#include "clusterctl/ctl_client.h"
#include "clusterctl/job_wait.h"
#include "clusterctl/units.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "proto/pbjson.h"

#define STATUS(x) GANTRY__STATUS__STATUS_##x

static size_t count_domains(const Gantry__CtlModel *m, const char *host)
{
	size_t n = 0;

	for (size_t i = 0; i < m->model->n_domains; i++)
		n += strcmp(m->model->domains[i]->host, host) == 0;
	return n;
}

static json_t *host_json(const Gantry__CtlModel *m, const Gantry__Host *h)
{
	const Gantry__HostSoft *soft = cmd_host_soft(m, h->node_id);
	json_t *json = pbjson_from_message(&h->base, true);

	json_object_set_new(json, "domains", json_integer((json_int_t)count_domains(m, h->name)));
	json_object_set_new(json, "leader", json_boolean(m->model->leader == h->node_id));
	if (soft != NULL)
		json_object_set_new(json, "memory_free_bytes", json_integer((json_int_t)soft->memory_free_bytes));
	return json;
}

int cmd_host_list(struct invocation *inv)
{
	static const struct output_column columns[] = {{"Host", false},	  {"ID", true},	   {"State", false}, {"Address", false},
						       {"Memory", true}, {"Free", true},  {"CPUs", true},   {"Domains", true},
						       {"Accel", false}, {"Reason", false}};
	Gantry__CtlModel *m = NULL;
	int rc = cmd_model(inv, false, &m);

	if (rc < 0)
		return rc;
	struct output_table *t = output_table_new(inv->format, columns, ARRAY_SIZE(columns));
	for (size_t i = 0; i < m->model->n_hosts; i++) {
		const Gantry__Host *h = m->model->hosts[i];
		const Gantry__HostSoft *soft = cmd_host_soft(m, h->node_id);
		char *const cells[] = {
			str_dup(h->name),
			str_printf("%u", h->node_id),
			str_dup(pbjson_enum_word(&gantry__host_state__descriptor, h->state)),
			str_dup(h->address),
			units_format_bytes(h->memory_bytes),
			soft ? units_format_bytes(soft->memory_free_bytes) : str_dup("-"),
			str_printf("%u", h->cpus),
			str_printf("%zu", count_domains(m, h->name)),
			str_dup(h->accel[0] ? h->accel : "-"),
			str_dup(h->state_reason),
		};
		output_table_row(t, cells, host_json(m, h));
	}
	rc = output_table_finish(t, &inv->err);
	gantry__ctl_model__free_unpacked(m, NULL);
	return rc;
}

int cmd_host_show(struct invocation *inv)
{
	Gantry__CtlModel *m = NULL;
	int rc = cmd_model(inv, false, &m);

	if (rc < 0)
		return rc;
	const Gantry__Host *h;
	rc = cmd_host_named(inv, m, &h);
	if (rc == 0)
		rc = output_object(inv->format, host_json(m, h), &inv->err);
	gantry__ctl_model__free_unpacked(m, NULL);
	return rc;
}

int cmd_host_remove(struct invocation *inv)
{
	Gantry__Command command = GANTRY__COMMAND__INIT;
	Gantry__CmdHostRemove body = GANTRY__CMD_HOST_REMOVE__INIT;
	_cleanup_free_ char *done = str_printf("host %s is removed from the cluster", inv->args[0]);
	Gantry__CtlModel *m = NULL;
	int rc = cmd_model(inv, false, &m);

	if (rc < 0)
		return rc;
	const Gantry__Host *h;
	rc = cmd_host_named(inv, m, &h);
	if (rc == 0)
		body.node_id = h->node_id;
	gantry__ctl_model__free_unpacked(m, NULL);
	if (rc < 0)
		return rc;
	body.name = (char *)inv->args[0];
	command.body_case = GANTRY__COMMAND__BODY_HOST_REMOVE;
	command.host_remove = &body;
	return job_run(inv, &command, done);
}

static void print_ha(struct invocation *inv, const Gantry__CtlStatus *s)
{
	_cleanup_free_ char *disarmed = NULL;
	Gantry__CtlModel *m = NULL;

	if (!s->cluster_name[0] || cmd_model(inv, false, &m) < 0)
		return;
	disarmed = cmd_ha_disarmed(m->model);
	if (disarmed != NULL)
		printf("%s\n", disarmed);
	gantry__ctl_model__free_unpacked(m, NULL);
}

static void print_status(struct invocation *inv, const Gantry__CtlStatus *s)
{
	printf("Cluster      %s (%s)\n", s->cluster_name[0] ? s->cluster_name : "none: run 'clusterctl cluster init'", s->cluster_uuid);
	printf("Asked        %s, clusterd %s, agent %s\n", s->host, s->version, s->agent_connected ? "connected" : "not connected");
	printf("Quorum       %s: %u votes, %u needed\n", s->quorate ? "yes" : "NO", s->votes, s->quorum);
	printf("Log          %s; epoch %" PRIu64 ", committed %" PRIu64 ", applied %" PRIu64 "\n", s->log_state, s->epoch, s->commit_index,
	       s->applied_index);
	print_ha(inv, s);
	putchar('\n');
}

static void add_member(struct output_table *t, const Gantry__MemberInfo *m)
{
	char *const cells[] = {
		str_dup(m->name),
		str_printf("%u", m->node_id),
		str_dup(m->address),
		str_dup(m->member ? "yes" : "NO"),
		str_dup(m->synced ? "yes" : "no"),
		str_dup(m->voter ? "yes" : "no"),
		str_dup(m->leader ? "leader" : ""),
	};

	output_table_row(t, cells, json_null());
}

int cmd_cluster_status(struct invocation *inv)
{
	static const struct output_column columns[] = {{"Host", false}, {"ID", true}, {"Address", false}, {"Member", false},
						       {"Synced", false}, {"Votes", false}, {"Role", false}};
	Gantry__CtlStatus *s = NULL;
	struct ctl_client *c;
	int rc = invocation_client(inv, &c);

	if (rc == 0)
		rc = cmd_ask_status(c, &s, &inv->err);
	if (rc < 0)
		return rc;
	if (inv->format == OUTPUT_TABLE) {
		struct output_table *t = output_table_new(OUTPUT_TABLE, columns, ARRAY_SIZE(columns));
		print_status(inv, s);
		for (size_t i = 0; i < s->n_members; i++)
			add_member(t, s->members[i]);
		rc = output_table_finish(t, &inv->err);
	} else if (inv->format == OUTPUT_NAME) {
		puts(s->cluster_name);
	} else {
		rc = output_object(inv->format, pbjson_from_message(&s->base, true), &inv->err);
	}
	gantry__ctl_status__free_unpacked(s, NULL);
	return rc;
}
