// A transformer on a CPU: tokens of several sequences, through a key-value cache, to logits of the tokens that follow.
//
// native.py compiles this file, fills in the structures and calls `decode` and `read_prompts`. All memory is the caller's,
// weights are float32. A step is one parallel region: the threads share out the outputs of every product, and wait for
// each other where one needs all of the last one. What a row becomes does not depend on the number of threads or rows.

#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

// Vectors as wide as the processor's registers, and tiles of ROWS × 2 of them that leave registers for their operands.
#if defined(__AVX512F__)
#define LANES 16
#define ROWS 12
#elif defined(__AVX__)
#define LANES 8
#define ROWS 6
#elif defined(__aarch64__)
#define LANES 4
#define ROWS 12
#else
#define LANES 4
#define ROWS 6
#endif
#define PANEL (2 * LANES)
typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef float Unaligned __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

typedef struct {      // matrices (outputs, inputs) by rows, or in panels
    const float *norm, *query, *key, *value, *query_norm, *key_norm, *out, *feed_norm, *gate, *up, *down;
    float *keys, *values;      // (slots, shared, capacity, head)
} Layer;

typedef struct {
    int32_t vocabulary, hidden, layers, heads, shared, head, wide;      // shared: key-value heads
    int32_t slots, capacity, rows, packed;      // rows: of a step, at most; packed: matrices are in panels
    float epsilon;
    const float *embedding, *output, *norm, *cosine, *sine;             // of the angles: (capacity, head)
    const Layer *layer;
    float *scratch;
    int32_t *places;                                                    // (4, rows)
} Model;

typedef struct {      // what a step works on: a token in each row
    float *x, *query, *key, *value, *attended, *gate, *up, *own;        // (rows, …)
    int32_t *slot, *position;                                           // (rows,)
    int32_t *last, *to;                                                 // (outputs,): a row, and its place in logits
    int rows, outputs;
} Step;

static int64_t padded(int64_t count) { return (count + 15) / 16 * 16; }      // whole cache lines

int panel_width(void) { return PANEL; }

static int64_t own_size(const Model *m) {      // floats of one thread: normalised rows and scores
    return padded((int64_t)m->rows * m->hidden) + padded(m->capacity);
}

int64_t scratch_size(const Model *m, int threads) {
    int64_t row = padded(m->hidden) + 2 * padded(m->heads * m->head) + 2 * padded(m->shared * m->head) +
                  2 * padded(m->wide);
    return m->rows * row + threads * own_size(m);
}

// ---- products

// Panels hold the weights of PANEL outputs input by input, so that a tile reads them in order: (panels, inputs, PANEL).
void pack(float *panels, const float *weights, int outputs, int inputs) {
    for (int panel = 0; panel < (outputs + PANEL - 1) / PANEL; panel++) {
        float *to = panels + (size_t)panel * inputs * PANEL;
        int width = outputs - panel * PANEL < PANEL ? outputs - panel * PANEL : PANEL;
        if (width < PANEL) memset(to, 0, (size_t)inputs * PANEL * sizeof *to);
        const float *from = weights + (size_t)panel * PANEL * inputs;
        for (int i = 0; i < inputs; i += 16)      // a cache line of each output at a time
            for (int lane = 0; lane < width; lane++)
                for (int j = i; j < inputs && j < i + 16; j++)
                    to[(size_t)j * PANEL + lane] = from[(size_t)lane * inputs + j];
    }
}

// `rows` rows of x times one panel. `rows` is constant where this is inlined: the sums stay in registers.
static inline __attribute__((always_inline)) void tile(const int rows, const float *panel, const float *x, int inputs,
                                                       float *const *y, int width, int add) {
    Vector sums[ROWS][2];
    for (int r = 0; r < rows; r++) sums[r][0] = sums[r][1] = (Vector){0};
    for (int i = 0; i < inputs; i++, panel += PANEL) {
        Vector left = *(const Vector *)panel, right = *(const Vector *)(panel + LANES);
        for (int r = 0; r < rows; r++) {
            float value = x[(size_t)r * inputs + i];
            sums[r][0] += value * left;
            sums[r][1] += value * right;
        }
    }
    for (int r = 0; r < rows; r++) {
        if (width == PANEL) {
            for (int half = 0; half < 2; half++) {
                Unaligned *to = (Unaligned *)(y[r] + half * LANES);
                if (add) sums[r][half] += *to;
                *to = sums[r][half];
            }
        } else {
            float lanes[PANEL];
            memcpy(lanes, sums[r], sizeof lanes);
            for (int lane = 0; lane < width; lane++) y[r][lane] = add ? y[r][lane] + lanes[lane] : lanes[lane];
        }
    }
}

static void any_tile(int rows, const float *panel, const float *x, int inputs, float *const *y, int width, int add) {
#define CASE(count) case count: tile(count, panel, x, inputs, y, width, add); break;
    switch (rows) {
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#if ROWS == 12
        CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#endif
    }
#undef CASE
}

// out[j] = Σ_i x[i] weights[j][i]: four sums at a time, as one has to wait for its last addition.
static void dots(float *out, const float *weights, const float *x, int outputs, int inputs, int add) {
    int j = 0;
    for (; j + 4 <= outputs; j += 4) {
        const float *a = weights + (size_t)j * inputs, *b = a + inputs, *c = b + inputs, *d = c + inputs;
        float s = 0, t = 0, u = 0, v = 0;
#pragma omp simd reduction(+ : s, t, u, v)
        for (int i = 0; i < inputs; i++) {
            s += x[i] * a[i];
            t += x[i] * b[i];
            u += x[i] * c[i];
            v += x[i] * d[i];
        }
        float sums[4] = {s, t, u, v};
        for (int l = 0; l < 4; l++) out[j + l] = add ? out[j + l] + sums[l] : sums[l];
    }
    for (; j < outputs; j++) {
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int i = 0; i < inputs; i++) sum += x[i] * weights[(size_t)j * inputs + i];
        out[j] = add ? out[j] + sum : sum;
    }
}

typedef struct { int first, last; } Share;

static Share share(const Model *m, int outputs, int part, int parts) {      // outputs of one thread
    int unit = m->packed ? PANEL : 16, units = (outputs + unit - 1) / unit;
    int first = (int)((int64_t)units * part / parts) * unit, last = (int)((int64_t)units * (part + 1) / parts) * unit;
    return (Share){first, last < outputs ? last : outputs};
}

// y = x Wᵀ, or y += x Wᵀ, for the outputs of a share. Row r of y is its row `to[r]` where that is given.
static void multiply(const Model *m, float *y, const float *weights, const float *x, int rows, int outputs, int inputs,
                     Share mine, int add, const int32_t *to) {
    if (!m->packed) {
        for (int j = mine.first; j < mine.last; j += 16)      // weights that are in the cache serve all rows
            for (int r = 0; r < rows; r++)
                dots(y + (size_t)(to ? to[r] : r) * outputs + j, weights + (size_t)j * inputs, x + (size_t)r * inputs,
                     mine.last - j < 16 ? mine.last - j : 16, inputs, add);
        return;
    }
    int blocks = (rows + ROWS - 1) / ROWS;      // of nearly the same size
    for (int j = mine.first; j < mine.last; j += PANEL) {
        for (int block = 0; block < blocks; block++) {
            int first = rows * block / blocks, count = rows * (block + 1) / blocks - first;
            float *places[ROWS];
            for (int r = 0; r < count; r++)
                places[r] = y + (size_t)(to ? to[first + r] : first + r) * outputs + j;
            any_tile(count, weights + (size_t)j * inputs, x + (size_t)first * inputs, inputs, places,
                     outputs - j < PANEL ? outputs - j : PANEL, add);
        }
    }
}

// ---- the rest

// e^x to the last two bits, in operations that compilers turn into vectors (polynomial: Cephes, expf).
static inline __attribute__((always_inline)) float exponential(float x) {
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    union { float value; uint32_t bits; } whole = {x * 1.44269504f + 12582912.0f}, power;      // rounds to an integer
    float n = whole.value - 12582912.0f, r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float y = 1.9875691500e-4f;
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    power.bits = (whole.bits - 0x4b400000u + 127) << 23;
    return (y * r * r + r + 1.0f) * power.value;
}

static void normalise(float *out, const float *in, const float *weight, int count, float epsilon) {      // RMSNorm
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < count; i++) sum += in[i] * in[i];
    float scale = 1 / sqrtf(sum / (float)count + epsilon);
    for (int i = 0; i < count; i++) out[i] = in[i] * scale * weight[i];
}

static void normalise_and_rotate(const Model *m, float *out, const float *in, const float *weight, int64_t position) {
    const float *cosine = m->cosine + position * m->head, *sine = m->sine + position * m->head;
    int half = m->head / 2;
    normalise(out, in, weight, m->head, m->epsilon);
    for (int i = 0; i < half; i++) {      // each pair (x_i, x_{i+D/2}) by its angle
        float first = out[i], second = out[i + half];
        out[i] = first * cosine[i] - second * sine[i];
        out[i + half] = second * cosine[i + half] + first * sine[i + half];
    }
}

static void remember(const Model *m, const Layer *layer, const Step *step, int row, int shared) {      // key and value
    size_t from = ((size_t)row * m->shared + shared) * m->head;
    size_t to = (((size_t)step->slot[row] * m->shared + shared) * m->capacity + step->position[row]) * m->head;
    normalise_and_rotate(m, layer->keys + to, step->key + from, layer->key_norm, step->position[row]);
    memcpy(layer->values + to, step->value + from, m->head * sizeof *step->value);
}

// softmax(q K / √D) V of one query head of one row, over the places up to its own.
static void attend(const Model *m, const Layer *layer, const Step *step, int row, int head, float *scores) {
    int size = m->head, shared = head / (m->heads / m->shared), places = step->position[row] + 1;
    float *query = step->query + ((size_t)row * m->heads + head) * size;
    size_t cached = ((size_t)step->slot[row] * m->shared + shared) * m->capacity * size;
    const float *values = layer->values + cached;
    normalise_and_rotate(m, query, query, layer->query_norm, step->position[row]);
    dots(scores, layer->keys + cached, query, places, size, 0);
    float most = scores[0], total = 0, scale = 1 / sqrtf((float)size);
#pragma omp simd reduction(max : most)
    for (int place = 0; place < places; place++) most = scores[place] > most ? scores[place] : most;
#pragma omp simd reduction(+ : total)
    for (int place = 0; place < places; place++) {
        scores[place] = exponential((scores[place] - most) * scale);
        total += scores[place];
    }
    float *out = step->attended + ((size_t)row * m->heads + head) * size;
    memset(out, 0, size * sizeof *out);
    int place = 0;
    for (; place + 4 <= places; place += 4) {      // the sums are read and written once for four places
        const float *a = values + (size_t)place * size, *b = a + size, *c = b + size, *d = c + size, *w = scores + place;
        for (int i = 0; i < size; i++) out[i] += w[0] * a[i] + w[1] * b[i] + w[2] * c[i] + w[3] * d[i];
    }
    for (; place < places; place++)
        for (int i = 0; i < size; i++) out[i] += scores[place] * values[(size_t)place * size + i];
    for (int i = 0; i < size; i++) out[i] /= total;
}

static void barrier(int parts) {      // every thread comes here
    if (parts > 1) {
#pragma omp barrier
    }
}

static void normalise_rows(const Model *m, float *out, const float *in, const float *weight, int rows) {
    for (int r = 0; r < rows; r++)
        normalise(out + (size_t)r * m->hidden, in + (size_t)r * m->hidden, weight, m->hidden, m->epsilon);
}

static int begin(int items, int part, int parts) { return (int)((int64_t)items * part / parts); }

static void run(const Model *m, const Step *step, float *logits, int part, int parts) {      // what one thread does
    int rows = step->rows, queries = m->heads * m->head, keys = m->shared * m->head;
    float *normed = step->own + part * own_size(m), *scores = normed + padded((int64_t)m->rows * m->hidden);
    Share hidden = share(m, m->hidden, part, parts), wide = share(m, m->wide, part, parts);
    for (const Layer *layer = m->layer; layer < m->layer + m->layers; layer++) {
        normalise_rows(m, normed, step->x, layer->norm, rows);      // each for itself: cheaper than to wait
        multiply(m, step->query, layer->query, normed, rows, queries, m->hidden, share(m, queries, part, parts), 0, 0);
        multiply(m, step->key, layer->key, normed, rows, keys, m->hidden, share(m, keys, part, parts), 0, 0);
        multiply(m, step->value, layer->value, normed, rows, keys, m->hidden, share(m, keys, part, parts), 0, 0);
        barrier(parts);
        int shared = rows * m->shared, heads = rows * m->heads;
        for (int item = begin(shared, part, parts); item < begin(shared, part + 1, parts); item++)
            remember(m, layer, step, item / m->shared, item % m->shared);
        barrier(parts);
        for (int item = begin(heads, part, parts); item < begin(heads, part + 1, parts); item++)
            attend(m, layer, step, item / m->heads, item % m->heads, scores);
        barrier(parts);
        multiply(m, step->x, layer->out, step->attended, rows, m->hidden, queries, hidden, 1, 0);
        barrier(parts);
        normalise_rows(m, normed, step->x, layer->feed_norm, rows);
        multiply(m, step->gate, layer->gate, normed, rows, m->wide, m->hidden, wide, 0, 0);
        multiply(m, step->up, layer->up, normed, rows, m->wide, m->hidden, wide, 0, 0);
        for (int r = 0; r < rows; r++) {
            float *gate = step->gate + (size_t)r * m->wide;
            const float *up = step->up + (size_t)r * m->wide;
#pragma omp simd
            for (int i = wide.first; i < wide.last; i++) gate[i] = gate[i] / (1 + exponential(-gate[i])) * up[i];
        }
        barrier(parts);
        multiply(m, step->x, layer->down, step->gate, rows, m->hidden, m->wide, hidden, 1, 0);
        barrier(parts);
    }
    for (int i = 0; i < step->outputs; i++)
        normalise(normed + (size_t)i * m->hidden, step->x + (size_t)step->last[i] * m->hidden, m->norm, m->hidden,
                  m->epsilon);
    multiply(m, logits, m->output, normed, step->outputs, m->vocabulary, m->hidden,
             share(m, m->vocabulary, part, parts), 0, step->to);
}

static Step begun(const Model *m) {
    Step step = {.x = m->scratch};
    step.query = step.x + m->rows * padded(m->hidden);
    step.key = step.query + m->rows * padded(m->heads * m->head);
    step.value = step.key + m->rows * padded(m->shared * m->head);
    step.attended = step.value + m->rows * padded(m->shared * m->head);
    step.gate = step.attended + m->rows * padded(m->heads * m->head);
    step.up = step.gate + m->rows * padded(m->wide);
    step.own = step.up + m->rows * padded(m->wide);
    step.slot = m->places;
    step.position = step.slot + m->rows;
    step.last = step.position + m->rows;
    step.to = step.last + m->rows;
    return step;
}

static void add(const Model *m, Step *step, int64_t id, int slot, int64_t position, int to) {      // to: -1 for none
    memcpy(step->x + (size_t)step->rows * m->hidden, m->embedding + id * m->hidden, m->hidden * sizeof *step->x);
    if (to >= 0) {
        step->last[step->outputs] = step->rows;
        step->to[step->outputs++] = to;
    }
    step->slot[step->rows] = slot;
    step->position[step->rows++] = (int32_t)position;
}

static void make(const Model *m, Step *step, float *logits, int threads) {
#ifdef _OPENMP
    if (threads > 1) {
#pragma omp parallel num_threads(threads)
        run(m, step, logits, omp_get_thread_num(), omp_get_num_threads());
        return;
    }
#endif
    (void)threads;
    run(m, step, logits, 0, 1);
}

static int is_token(const Model *m, int64_t id) { return id >= 0 && id < m->vocabulary; }

// One more token of each live slot: logits (slots, vocabulary), those of other slots stay; their lengths grow. Returns
// -1, and changes nothing, where a token is not in the vocabulary or a slot is full.
int decode(const Model *m, const int64_t *ids, int64_t *lengths, const uint8_t *alive, float *logits, int threads) {
    Step step = begun(m);
    for (int slot = 0; slot < m->slots; slot++) {
        if (!alive[slot]) continue;
        if (!is_token(m, ids[slot]) || lengths[slot] < 0 || lengths[slot] >= m->capacity) return -1;
        add(m, &step, ids[slot], slot, lengths[slot], slot);
    }
    if (step.rows) make(m, &step, logits, threads);
    for (int r = 0; r < step.rows; r++) lengths[step.slot[r]]++;
    return 0;
}

// Prompts, one after the other in `ids`, each of `counts` tokens into a slot that begins anew: logits (prompts,
// vocabulary). Returns -1, and changes nothing, where a token, a slot or a length is none.
int read_prompts(const Model *m, const int64_t *ids, const int64_t *counts, const int64_t *slots, int prompts,
         int64_t *lengths, float *logits, int threads) {
    const int64_t *id = ids;
    for (int prompt = 0; prompt < prompts; prompt++) {
        if (counts[prompt] < 1 || counts[prompt] > m->capacity || slots[prompt] < 0 || slots[prompt] >= m->slots)
            return -1;
        for (int64_t i = 0; i < counts[prompt]; i++) if (!is_token(m, *id++)) return -1;
    }
    Step step = begun(m);
    for (int prompt = 0; prompt < prompts; prompt++) {
        for (int64_t place = 0; place < counts[prompt]; place++) {
            if (step.rows == m->rows) {      // keys of what comes before are in the cache
                make(m, &step, logits, threads);
                step = begun(m);
            }
            add(m, &step, *ids++, (int)slots[prompt], place, place + 1 == counts[prompt] ? prompt : -1);
        }
        lengths[slots[prompt]] = counts[prompt];
    }
    make(m, &step, logits, threads);
    return 0;
}
