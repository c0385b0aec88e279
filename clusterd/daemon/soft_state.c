#include "clusterd/daemon/soft_state.h"

#include <stdlib.h>

#include "lib/buf.h"
#include "lib/limits.h"

static struct soft_host *find(const struct soft_state *s, uint32_t node_id)
{
	for (size_t i = 0; i < s->n; i++)
		if (s->hosts[i].soft->node_id == node_id)
			return &s->hosts[i];
	return NULL;
}

bool soft_state_put(struct soft_state *s, uint32_t sender, const uint8_t *data, size_t len, uint64_t now_ms)
{
	Gantry__HostSoft *soft = gantry__host_soft__unpack(NULL, len, data);
	struct soft_host *h;

	if (!soft || soft->node_id != sender) {
		if (soft)
			gantry__host_soft__free_unpacked(soft, NULL);
		return false;
	}
	h = find(s, sender);
	if (h) {
		gantry__host_soft__free_unpacked(h->soft, NULL);
	} else if (s->n < LIMIT_HOSTS) {
		s->hosts = mem_realloc(s->hosts, (s->n + 1) * sizeof(*s->hosts));
		h = &s->hosts[s->n++];
	} else {
		gantry__host_soft__free_unpacked(soft, NULL);
		return false;
	}
	*h = (struct soft_host){.soft = soft, .received_ms = now_ms};
	return true;
}

void soft_state_age(struct soft_state *s, uint64_t now_ms)
{
	for (size_t i = 0; i < s->n;) {
		if (now_ms - s->hosts[i].received_ms < SOFT_STATE_KEPT_MS) {
			i++;
			continue;
		}
		gantry__host_soft__free_unpacked(s->hosts[i].soft, NULL);
		s->hosts[i] = s->hosts[--s->n];
	}
}

const Gantry__HostSoft *soft_state_host(const struct soft_state *s, uint32_t node_id)
{
	const struct soft_host *h = find(s, node_id);

	return h ? h->soft : NULL;
}

Gantry__MigrationProgress *soft_state_progress(const struct soft_state *s, uint32_t node_id, uint64_t job_id)
{
	const Gantry__HostSoft *soft = soft_state_host(s, node_id);

	for (size_t i = 0; soft && i < soft->n_progress; i++)
		if (soft->progress[i]->job_id == job_id)
			return soft->progress[i];
	return NULL;
}

void soft_state_free(struct soft_state *s)
{
	for (size_t i = 0; i < s->n; i++)
		gantry__host_soft__free_unpacked(s->hosts[i].soft, NULL);
	free(s->hosts);
	*s = (struct soft_state){0};
}
