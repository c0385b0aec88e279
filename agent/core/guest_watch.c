#include "agent/core/guest_watch.h"

void guest_watch_reset(struct guest_watch *w)
{
	w->heard = false;
	w->unanswered = 0;
}

void guest_watch_asked(struct guest_watch *w)
{
	w->unanswered++;
}

void guest_watch_answered(struct guest_watch *w, uint64_t now_ms)
{
	w->heard = true;
	w->heard_at_ms = now_ms;
	w->unanswered = 0;
}

uint32_t guest_watch_ask_every_ms(uint32_t hung_s)
{
	uint64_t third = (uint64_t)hung_s * 1000 / (GUEST_WATCH_QUESTIONS + 1);

	if (hung_s == 0 || third >= GUEST_WATCH_ASK_MS)
		return GUEST_WATCH_ASK_MS;
	return third > GUEST_WATCH_ASK_LEAST_MS ? (uint32_t)third : GUEST_WATCH_ASK_LEAST_MS;
}

bool guest_watch_tick(struct guest_watch *w, uint64_t now_ms, bool running, uint32_t hung_s)
{
	uint64_t gap = now_ms - w->seen_at_ms;

	w->seen_at_ms = now_ms;
	if (!running) {
		w->heard_at_ms = now_ms;
		w->unanswered = 0;
		return false;
	}
	if (gap > GUEST_WATCH_GAP_MS)
		w->heard_at_ms = w->heard_at_ms + gap < now_ms ? w->heard_at_ms + gap : now_ms;
	return hung_s != 0 && w->heard && w->unanswered >= GUEST_WATCH_QUESTIONS &&
	       now_ms - w->heard_at_ms >= (uint64_t)hung_s * 1000;
}
