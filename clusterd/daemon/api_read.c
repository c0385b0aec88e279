#include <stdlib.h>

#include "clusterd/daemon/api_internal.h"
#include "proto/pb.h"

void api__on_status(struct api_client *client, uint64_t id)
{
	Gantry__CtlMessage message = GANTRY__CTL_MESSAGE__INIT;
	Gantry__CtlStatus *status = client->api->ops.status(client->api->data);

	message.body_case = GANTRY__CTL_MESSAGE__BODY_STATUS;
	message.status = status;
	api__send(client, id, &message);
	gantry__ctl_status__free_unpacked(status, NULL);
}

static void hide_secrets(Gantry__ClusterModel *m)
{
	for (size_t i = 0; i < m->n_hosts; i++)
		for (size_t k = 0; k < m->hosts[i]->n_fence; k++)
			for (size_t p = 0; p < m->hosts[i]->fence[k]->n_params; p++)
				if (m->hosts[i]->fence[k]->params[p]->secret)
					pb_set_string(&m->hosts[i]->fence[k]->params[p]->value, NULL);
	for (size_t i = 0; i < m->n_jobs; i++)
		pb_set_bytes(&m->jobs[i]->token, NULL, 0);
}

void api__on_model(struct api_client *client, uint64_t id, const Gantry__CtlModelRequest *request)
{
	struct api *api = client->api;
	const struct soft_state *soft = api->ops.soft(api->data);
	Gantry__CtlMessage message = GANTRY__CTL_MESSAGE__INIT;
	Gantry__CtlModel body = GANTRY__CTL_MODEL__INIT;
	Gantry__ClusterModel view = *api->ops.model(api->data)->state;
	Gantry__HostSoft **list;

	if (request->committed_only && !api->ops.is_current(api->data)) {
		api__error(client, id, STATUS(NO_QUORUM), "host %s is not in the quorum now, and what it knew last was not asked for; ask another host "
			   "(clusterctl --host), or leave --committed out", api->config.host);
		return;
	}
	list = mem_alloc((soft->n + 1) * sizeof(*list));
	/* Requests are nobody's business; events are many and asked for. */
	view.n_requests = 0;
	if (!request->events)
		view.n_events = 0;
	body.model = pb_clone(&view);
	hide_secrets(body.model);
	for (size_t i = 0; i < soft->n; i++)
		list[i] = soft->hosts[i].soft;
	body.soft = list;
	body.n_soft = soft->n;
	body.quorate = api->ops.is_current(api->data);
	body.host = (char *)api->config.host;
	message.body_case = GANTRY__CTL_MESSAGE__BODY_MODEL;
	message.model = &body;
	api__send(client, id, &message);
	gantry__cluster_model__free_unpacked(body.model, NULL);
	free(list);
}
