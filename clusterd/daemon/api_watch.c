#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "clusterd/daemon/api_internal.h"
#include "lib/limits.h"
#include "proto/pb.h"

/* What was sent last is remembered as a hash: FNV-1a of the packed message. */
static uint64_t hash_message(const void *message)
{
	uint64_t hash = 0xcbf29ce484222325u;
	struct buf packed = {0};

	pb_pack(message, &packed);
	for (size_t i = 0; i < packed.len; i++)
		hash = (hash ^ packed.data[i]) * 0x100000001b3u;
	buf_free(&packed);
	return hash;
}

static struct api_watch *watch_new(struct api_client *client, uint64_t id)
{
	struct api_watch *w;

	if (client->n_watches >= LIMIT_API_WATCHES) {
		api__error(client, id, STATUS(RETRY), "this connection watches %d things already", LIMIT_API_WATCHES);
		return NULL;
	}
	client->watches = mem_realloc(client->watches, (client->n_watches + 1) * sizeof(*w));
	w = &client->watches[client->n_watches++];
	*w = (struct api_watch){.id = id};
	return w;
}

/* The progress as the source tells it, else as the destination does. */
static Gantry__MigrationProgress *progress_of(struct api *api, const Gantry__Job *job)
{
	const struct model *model = api->ops.model(api->data);
	const char *const hosts[] = {job->source, job->destination};
	Gantry__MigrationProgress *progress = NULL;

	for (size_t i = 0; i < 2 && !progress; i++) {
		const Gantry__Host *h = hosts[i][0] ? model_host(model, hosts[i]) : NULL;

		if (h)
			progress = soft_state_progress(api->ops.soft(api->data), h->node_id, job->id);
	}
	return progress;
}

/* True: the job has ended and so has the watch. */
static bool review_job(struct api_client *client, struct api_watch *w)
{
	struct api *api = client->api;
	const struct model *model = api->ops.model(api->data);
	Gantry__Job *job = model_job(model, w->job_id);
	Gantry__CtlMessage message = GANTRY__CTL_MESSAGE__INIT;
	Gantry__CtlJob body = GANTRY__CTL_JOB__INIT;
	uint64_t job_hash, soft_hash;
	Gantry__Job shown;

	if (!job) {
		api__error(client, w->id, STATUS(NO_SUCH), "no task %" PRIu64 " (any more); see 'clusterctl task list'", w->job_id);
		return true;
	}
	shown = *job;
	shown.token = (ProtobufCBinaryData){0};
	body.job = &shown;
	body.progress = progress_of(api, job);
	body.ended = job->state != GANTRY__JOB_STATE__JOB_STATE_RUNNING;
	body.domain = job->domain_uuid[0] ? model_domain(model, job->domain_uuid) : NULL;
	job_hash = hash_message(&shown) ^ (body.domain ? hash_message(body.domain) : 0);
	soft_hash = body.progress ? hash_message(body.progress) : 0;
	if (job_hash == w->job_hash && soft_hash == w->soft_hash)
		return false;
	w->job_hash = job_hash;
	w->soft_hash = soft_hash;
	message.body_case = GANTRY__CTL_MESSAGE__BODY_JOB;
	message.job = &body;
	api__send(client, w->id, &message);
	return body.ended;
}

static void send_events(struct api_client *client, uint64_t id, uint64_t *after_id, bool even_none)
{
	const Gantry__ClusterModel *s = client->api->ops.model(client->api->data)->state;
	Gantry__CtlMessage message = GANTRY__CTL_MESSAGE__INIT;
	Gantry__CtlEvents body = GANTRY__CTL_EVENTS__INIT;
	size_t from = 0;

	while (from < s->n_events && s->events[from]->id <= *after_id)
		from++;
	body.events = s->events + from;
	body.n_events = s->n_events - from;
	if (!body.n_events && !even_none)
		return;
	if (body.n_events)
		*after_id = s->events[s->n_events - 1]->id;
	message.body_case = GANTRY__CTL_MESSAGE__BODY_EVENTS;
	message.events = &body;
	api__send(client, id, &message);
}

void api__watches_review(struct api_client *client)
{
	for (size_t i = 0; i < client->n_watches && !client->closing;) {
		struct api_watch *w = &client->watches[i];

		if (w->events)
			send_events(client, w->id, &w->after_id, false);
		if (w->events || !review_job(client, w))
			i++;
		else
			client->watches[i] = client->watches[--client->n_watches];
	}
}

void api__on_watch_job(struct api_client *client, uint64_t id, uint64_t job_id)
{
	struct api_watch *w = watch_new(client, id);

	if (!w)
		return;
	w->job_id = job_id;
	if (review_job(client, w))
		client->n_watches--;
}

void api__on_watch_events(struct api_client *client, uint64_t id, const Gantry__CtlWatchEvents *request)
{
	uint64_t after_id = request->after_id;
	struct api_watch *w = request->follow ? watch_new(client, id) : NULL;

	if (request->follow && !w)
		return;
	send_events(client, id, &after_id, true);
	if (w) {
		w->events = true;
		w->after_id = after_id;
	}
}
