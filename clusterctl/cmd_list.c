/* list and show: the domains, as xl lists them and in full. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "clusterctl/cmd.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "proto/pbjson.h"

#define STATUS(x) GANTRY__STATUS__STATUS_##x

/* The report of the domain's own host, of the generation that counts. */
static const Gantry__DomainReport *domain_report(const Gantry__CtlModel *m, const Gantry__Domain *d)
{
	const Gantry__Host *host = cmd_host(m, d->host);
	const Gantry__HostSoft *soft = host ? cmd_host_soft(m, host->node_id) : NULL;

	for (size_t i = 0; soft != NULL && i < soft->n_domains; i++)
		if (strcmp(soft->domains[i]->uuid, d->spec->uuid) == 0 && soft->domains[i]->generation == d->generation)
			return soft->domains[i];
	return NULL;
}

/* xl's six letters: running, blocked, paused, shutdown, crashed, dying. Whether a guest idles is not known. */
static char *state_letters(const Gantry__Domain *d)
{
	char letters[] = "------";

	switch (d->state) {
	case GANTRY__DOMAIN_STATE__DOMAIN_STATE_RUNNING:
		letters[0] = 'r';
		break;
	case GANTRY__DOMAIN_STATE__DOMAIN_STATE_PAUSED:
		letters[2] = 'p';
		break;
	case GANTRY__DOMAIN_STATE__DOMAIN_STATE_STOPPING:
		letters[3] = 's';
		break;
	case GANTRY__DOMAIN_STATE__DOMAIN_STATE_CRASHED:
		letters[4] = 'c';
		break;
	default:
		break;
	}
	return str_dup(letters);
}

static json_t *domain_json(const Gantry__CtlModel *m, const Gantry__Domain *d)
{
	const Gantry__DomainReport *report = domain_report(m, d);
	json_t *json = pbjson_from_message(&d->base, true);

	json_object_set_new(json, "name", json_string(d->spec->name));
	if (report != NULL)
		json_object_set_new(json, "report", pbjson_from_message(&report->base, true));
	return json;
}

static void add_row(struct output_table *t, const Gantry__CtlModel *m, const Gantry__Domain *d)
{
	const Gantry__DomainReport *report = domain_report(m, d);
	uint64_t cpu_ms = report ? report->cpu_time_ns / 1000000 : 0;
	char *const cells[] = {
		str_dup(d->spec->name),
		str_printf("%u", d->id),
		str_printf("%" PRIu64, d->spec->memory_bytes >> 20),
		str_printf("%u", d->spec->vcpus),
		state_letters(d),
		str_printf("%" PRIu64 ".%" PRIu64, cpu_ms / 1000, cpu_ms % 1000 / 100),
		str_dup(d->host[0] ? d->host : "-"),
		str_dup(pbjson_enum_word(&gantry__domain_state__descriptor, d->state)),
	};

	output_table_row(t, cells, domain_json(m, d));
}

static void warn_disarmed(const struct invocation *inv, const Gantry__ClusterModel *m)
{
	_cleanup_free_ char *disarmed = cmd_ha_disarmed(m);

	if (inv->format == OUTPUT_TABLE && disarmed != NULL)
		fprintf(stderr, "clusterctl: warning: %s\n", disarmed);
}

int cmd_list(struct invocation *inv)
{
	static const struct output_column columns[] = {{"Name", false}, {"ID", true},	 {"Mem", true},	   {"VCPUs", true},
						       {"State", false}, {"Time(s)", true}, {"Host", false}, {"Status", false}};
	Gantry__CtlModel *m = NULL;
	int rc = cmd_model(inv, false, &m);

	if (rc < 0)
		return rc;
	const Gantry__Domain *one = inv->n_args ? cmd_domain(m, inv->args[0]) : NULL;
	if (inv->n_args && one == NULL) {
		rc = err_set_status(&inv->err, ENOENT, STATUS(NO_SUCH), "no domain '%.60s'; see 'clusterctl list'", inv->args[0]);
	} else {
		struct output_table *t = output_table_new(inv->format, columns, ARRAY_SIZE(columns));
		for (size_t i = 0; i < m->model->n_domains; i++)
			if (one == NULL || one == m->model->domains[i])
				add_row(t, m, m->model->domains[i]);
		rc = output_table_finish(t, &inv->err);
		warn_disarmed(inv, m->model);
	}
	gantry__ctl_model__free_unpacked(m, NULL);
	return rc;
}

int cmd_show(struct invocation *inv)
{
	Gantry__CtlModel *m = NULL;
	int rc = cmd_model(inv, false, &m);

	if (rc < 0)
		return rc;
	const Gantry__Domain *d = cmd_domain(m, inv->args[0]);
	if (d == NULL)
		rc = err_set_status(&inv->err, ENOENT, STATUS(NO_SUCH), "no domain '%.60s'; see 'clusterctl list'", inv->args[0]);
	else
		rc = output_object(inv->format, domain_json(m, d), &inv->err);
	gantry__ctl_model__free_unpacked(m, NULL);
	return rc;
}
