/* Exactly-once: which requests were applied, and what they were answered. The records are a part of the state (oldest first); beside it
 * is an index of them, which each host makes for itself and which decides nothing.
 *
 * What goes when there are too many: the oldest of a client that has more than its share (all records, divided by the clients), the
 * newest one's own if that is such a client. So a busy client pushes out only itself and what others have left behind, and one that
 * has lost its host finds its last requests again, however much the others did meanwhile. */
#include <stdlib.h>

#include "clusterd/core/model_internal.h"

#define BUCKETS 1024

struct request_client {
	struct request_client *next;     /* in its bucket */
	struct request_node *oldest, *newest;
	size_t n;
};

struct request_node {
	struct request_node *next;       /* in its bucket */
	struct request_node *newer;      /* of the same client */
	struct request_client *client;
	Gantry__RequestRecord *record;
};

struct model_requests {
	struct request_node *nodes[BUCKETS];
	struct request_client *clients[BUCKETS];
	size_t n_clients;
};

/* FNV-1a */
static size_t bucket(const char *client, uint64_t seq)
{
	uint64_t hash = 0xcbf29ce484222325u ^ seq;

	for (; *client; client++)
		hash = (hash ^ (uint8_t)*client) * 0x100000001b3u;
	return (size_t)(hash ^ hash >> 32) % BUCKETS;
}

static struct request_node *find(const struct model_requests *index, const char *client, uint64_t seq)
{
	struct request_node *n = index->nodes[bucket(client, seq)];

	while (n && !(n->record->seq == seq && model__is(n->record->client, client)))
		n = n->next;
	return n;
}

static struct request_client *find_client(const struct model_requests *index, const char *client)
{
	struct request_client *c = index->clients[bucket(client, 0)];

	while (c && !model__is(c->newest->record->client, client))
		c = c->next;
	return c;
}

static struct request_client *index_add(struct model_requests *index, Gantry__RequestRecord *record)
{
	struct request_node *node = mem_alloc(sizeof(*node)), **at = &index->nodes[bucket(record->client, record->seq)];
	struct request_client *client = find_client(index, record->client);

	if (!client) {
		struct request_client **first = &index->clients[bucket(record->client, 0)];

		client = mem_alloc(sizeof(*client));
		client->oldest = node;
		client->next = *first;
		*first = client;
		index->n_clients++;
	} else {
		client->newest->newer = node;
	}
	client->newest = node;
	client->n++;
	node->client = client;
	node->record = record;
	node->next = *at;
	*at = node;
	return client;
}

/* Of a client only its oldest goes. */
static void index_remove(struct model_requests *index, struct request_node *node)
{
	struct request_node **at = &index->nodes[bucket(node->record->client, node->record->seq)];
	struct request_client *client = node->client, **first = &index->clients[bucket(node->record->client, 0)];

	while (*at != node)
		at = &(*at)->next;
	*at = node->next;
	client->oldest = node->newer;
	client->n--;
	if (!client->oldest) {
		index->n_clients--;
		while (*first != client)
			first = &(*first)->next;
		*first = client->next;
		free(client);
	}
	free(node);
}

void model__requests_free(struct model *m)
{
	for (size_t i = 0; m->requests && i < BUCKETS; i++) {
		while (m->requests->nodes[i]) {
			struct request_node *gone = m->requests->nodes[i];

			m->requests->nodes[i] = gone->next;
			free(gone);
		}
		while (m->requests->clients[i]) {
			struct request_client *gone = m->requests->clients[i];

			m->requests->clients[i] = gone->next;
			free(gone);
		}
	}
	free(m->requests);
	m->requests = NULL;
}

static struct model_requests *index_of(struct model *m)
{
	if (m->requests)
		return m->requests;
	m->requests = mem_alloc(sizeof(*m->requests));
	for (size_t i = 0; i < m->state->n_requests; i++)
		index_add(m->requests, m->state->requests[i]);
	return m->requests;
}

const Gantry__CommandResult *model__request_find(struct model *m, const Gantry__Command *c)
{
	const struct request_node *node = model__empty(c->client) ? NULL : find(index_of(m), c->client, c->seq);

	return node ? node->record->result : NULL;
}

static bool has_more_than_its_share(const struct model_requests *index, const struct request_client *client)
{
	return client->n * index->n_clients > LIMIT_REQUESTS_KEPT;
}

/* Where a record stands: they are in the order in which their commands stood in the log. */
static size_t place_of(const Gantry__ClusterModel *s, const Gantry__RequestRecord *record)
{
	size_t low = 0, high = s->n_requests;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (s->requests[middle]->result->log_index < record->result->log_index)
			low = middle + 1;
		else
			high = middle;
	}
	if (low < s->n_requests && s->requests[low] == record)
		return low;
	for (low = 0; s->requests[low] != record; low++)
		;
	return low;
}

/* One has to go: which, see above. client: of the newest one. */
static size_t choose_victim(const Gantry__ClusterModel *s, const struct model_requests *index, const struct request_client *client)
{
	size_t i = 0;

	if (client->n > 1 && has_more_than_its_share(index, client))
		return place_of(s, client->oldest->record);
	/* There is one: not all of them can have no more than the average. */
	while (!has_more_than_its_share(index, find_client(index, s->requests[i]->client)))
		i++;
	return i;
}

void model__request_keep(struct model *m, const Gantry__Command *c, const Gantry__CommandResult *result)
{
	Gantry__ClusterModel *s = m->state;
	struct model_requests *index = index_of(m);
	const struct request_client *client;
	Gantry__RequestRecord *r;

	if (model__empty(c->client) || MUTANT(retry_applied_twice) || (MUTANT(result_not_kept) && result->status != STATUS(OK)))
		return;
	r = PB_NEW(Gantry__RequestRecord, gantry__request_record__init);
	pb_set_string(&r->client, c->client);
	r->seq = c->seq;
	r->result = pb_clone(result);
	PB_APPEND(s, requests, r);
	client = index_add(index, r);
	if (s->n_requests > LIMIT_REQUESTS_KEPT) {
		size_t i = choose_victim(s, index, client);

		index_remove(index, find(index, s->requests[i]->client, s->requests[i]->seq));
		PB_REMOVE(s, requests, i);
	}
}
