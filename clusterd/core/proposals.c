#include "clusterd/core/proposals.h"

#include <stdlib.h>
#include <string.h>

static void proposal_free(struct proposal *p)
{
	if (p->free_data)
		free(p->data);
	buf_free(&p->packed);
	free(p);
}

struct proposal *proposals_add(struct proposals *ps)
{
	struct proposal *p = mem_alloc(sizeof(*p));

	if (ps->n == ps->cap) {
		ps->cap = ps->cap ? 2 * ps->cap : 64;
		ps->list = mem_realloc(ps->list, ps->cap * sizeof(*ps->list));
	}
	p->cookie = ++ps->next_cookie;
	ps->list[ps->n++] = p;
	return p;
}

/* Cookies only grow and so the list is sorted by them. */
static size_t position(const struct proposals *ps, uint64_t cookie)
{
	size_t low = 0, high = ps->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (ps->list[middle]->cookie < cookie)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct proposal *proposals_find(struct proposals *ps, uint64_t cookie)
{
	size_t i = position(ps, cookie);

	return i < ps->n && ps->list[i]->cookie == cookie ? ps->list[i] : NULL;
}

struct proposal *proposals_after(struct proposals *ps, uint64_t cookie)
{
	size_t i = position(ps, cookie + 1);

	return i < ps->n ? ps->list[i] : NULL;
}

void proposals_answer(struct proposals *ps, struct proposal *p, const Gantry__CommandResult *result)
{
	size_t i = position(ps, p->cookie);

	memmove(ps->list + i, ps->list + i + 1, (--ps->n - i) * sizeof(*ps->list));
	if (p->cb)
		p->cb(p->data, result);
	proposal_free(p);
}

void proposals_refuse(struct proposals *ps, struct proposal *p, Gantry__Status status, const char *text)
{
	Gantry__CommandResult result = GANTRY__COMMAND_RESULT__INIT;

	result.status = status;
	result.text = (char *)text;
	proposals_answer(ps, p, &result);
}

void proposals_free(struct proposals *ps)
{
	for (size_t i = 0; i < ps->n; i++)
		proposal_free(ps->list[i]);
	free(ps->list);
	*ps = (struct proposals){0};
}
