// Chat with the model beside this program, in plain C.
//
//     cc -O3 -march=native -ffast-math -fopenmp run.c -o run -lm      (without -fopenmp it uses one core)
//     ./run "Hello"                     one answer
//     ./run                             a conversation; an empty line ends it
//     ./run --ids 5,9,300 -n 20         plain token ids, for tests
//
// Options: -m model.bin, -n tokens, -t temperature (0 takes the likeliest token), -s seed.
//
// model.bin: "GENAI-1\n", twelve int32 (sizes), two float32, tokens, merges, kinds of characters, weights in float32.

#include <fcntl.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct {
    int vocabulary, hidden, layers, heads, shared, head, wide, context, turn_end, text_end, merges, ranges;
    float theta, epsilon;
} Sizes;

typedef struct {      // pointers into the file
    const float *norm, *query, *key, *value, *query_norm, *key_norm, *out, *feed_norm, *gate, *up, *down;
} Layer;

typedef struct {
    const char *bytes;
    int size, special;
} Token;

static Sizes size;
static Token *tokens;
static const int32_t *merges, *ranges;
static int32_t of_byte[256], *table;      // table: merges by a hash of their two ids
static uint32_t table_mask;
static const float *embedding, *last_norm;
static Layer *layers;
static float *keys, *values;              // (layers, shared heads, context, head size)
static float *x, *normed, *query, *key, *value, *attended, *gate, *up, *added, *logits, *scores;

static void fail(const char *what, const char *which) {
    fprintf(stderr, "%s%s\n", which, what);
    exit(1);
}

static void *room(size_t bytes) {
    void *found = calloc(1, bytes);
    if (!found) fail("not enough memory", "");
    return found;
}

// ---- the file

static uint32_t hash(int left, int right) {
    return ((uint32_t)left * 2654435761u ^ (uint32_t)right * 2246822519u) & table_mask;
}

static const float *take(const float **place, size_t count) {
    const float *here = *place;
    *place += count;
    return here;
}

static const char *file_end;

static void need(const char *place, int64_t bytes, const char *path) {
    if (bytes < 0 || bytes > file_end - place) fail(": cut off, or of another version", path);
}

static void check_sizes(const char *path) {      // none so large that a product of them overflows
    const int32_t *all = &size.vocabulary;
    for (int i = 0; i < 8; i++) if (all[i] < 1 || all[i] > 1 << 20) fail(": sizes that no model has", path);
    if (size.heads % size.shared || size.head % 2 || size.merges < 0 || size.ranges < 0 || size.merges > 1 << 24 ||
        size.ranges > 1 << 20)
        fail(": sizes that no model has", path);
}

static void load(const char *path) {
    int file = open(path, O_RDONLY);
    struct stat status;
    if (file < 0 || fstat(file, &status)) fail(": no such file", path);
    const char *begin = status.st_size < 64 ? MAP_FAILED : mmap(NULL, status.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    if (begin == MAP_FAILED || memcmp(begin, "GENAI-1\n", 8)) fail(": not a parameter file of this program", path);
    const char *place = begin + 8;
    file_end = begin + status.st_size;
    memcpy(&size, place, sizeof size);
    place += sizeof size;
    check_sizes(path);
    tokens = room(size.vocabulary * sizeof *tokens);
    for (int token = 0; token < size.vocabulary; token++) {
        int32_t length;
        need(place, 4, path);
        memcpy(&length, place, 4);
        if (length < -65536 || length > 65536) fail(": a token that no tokenizer has", path);
        need(place + 4, abs(length), path);
        tokens[token] = (Token){place + 4, abs(length), length < 0};
        place += 4 + abs(length);
        if (length == 1) of_byte[(unsigned char)tokens[token].bytes[0]] = token;
    }
    need(place, 12 * ((int64_t)size.merges + size.ranges), path);
    int32_t *copy = room(12 * ((size_t)size.merges + size.ranges) + 1);      // the file may have them off alignment
    memcpy(copy, place, 12 * ((size_t)size.merges + size.ranges));
    merges = copy;
    ranges = copy + 3 * (size_t)size.merges;
    place += 12 * ((size_t)size.merges + size.ranges);
    for (table_mask = 1; table_mask < 4u * (uint32_t)size.merges; table_mask *= 2) {}
    table = room(table_mask * sizeof *table);
    table_mask--;
    for (int rank = 0; rank < size.merges; rank++) {
        for (int i = 0; i < 3; i++)
            if (merges[3 * rank + i] < 0 || merges[3 * rank + i] >= size.vocabulary) fail(": a merge of no token", path);
        uint32_t at = hash(merges[3 * rank], merges[3 * rank + 1]);
        while (table[at]) at = (at + 1) & table_mask;
        table[at] = rank + 1;
    }
    const float *weights = (const float *)(begin + (place - begin + 63) / 64 * 64);
    int query_size = size.heads * size.head, key_size = size.shared * size.head;
    double floats = (double)size.hidden * size.vocabulary + size.hidden + (double)size.layers *
        (2.0 * size.hidden + 2.0 * size.head + (double)size.hidden * (2.0 * query_size + 2.0 * key_size + 3.0 * size.wide));
    if (floats * 4 != (double)(file_end - (const char *)weights)) fail(": cut off, or of another version", path);
    embedding = take(&weights, (size_t)size.vocabulary * size.hidden);
    layers = room(size.layers * sizeof *layers);
    for (Layer *layer = layers; layer < layers + size.layers; layer++) {
        layer->norm = take(&weights, size.hidden);
        layer->query = take(&weights, (size_t)query_size * size.hidden);
        layer->key = take(&weights, (size_t)key_size * size.hidden);
        layer->value = take(&weights, (size_t)key_size * size.hidden);
        layer->query_norm = take(&weights, size.head);
        layer->key_norm = take(&weights, size.head);
        layer->out = take(&weights, (size_t)size.hidden * query_size);
        layer->feed_norm = take(&weights, size.hidden);
        layer->gate = take(&weights, (size_t)size.wide * size.hidden);
        layer->up = take(&weights, (size_t)size.wide * size.hidden);
        layer->down = take(&weights, (size_t)size.hidden * size.wide);
    }
    last_norm = take(&weights, size.hidden);
    size_t cached = (size_t)size.layers * key_size * size.context;
    keys = room(cached * sizeof *keys);
    values = room(cached * sizeof *values);
    x = room(size.hidden * 4), normed = room(size.hidden * 4), added = room(size.hidden * 4);
    query = room(query_size * 4), attended = room(query_size * 4), key = room(key_size * 4), value = room(key_size * 4);
    gate = room(size.wide * 4), up = room(size.wide * 4), logits = room(size.vocabulary * 4);
    scores = room((size_t)size.heads * size.context * 4);
}

// ---- the model

static void normalise(float *out, const float *in, const float *weight, int count) {      // x / sqrt(mean(x²) + ε) · w
    float sum = 0;
    for (int i = 0; i < count; i++) sum += in[i] * in[i];
    float scale = 1 / sqrtf(sum / count + size.epsilon);
    for (int i = 0; i < count; i++) out[i] = in[i] * scale * weight[i];
}

static void multiply(float *out, const float *matrix, const float *in, int rows, int columns) {
#pragma omp parallel for if (rows * (size_t)columns > 30000)
    for (int row = 0; row < rows; row++) {
        const float *weights = matrix + (size_t)row * columns;
        float sum = 0;
        for (int i = 0; i < columns; i++) sum += weights[i] * in[i];
        out[row] = sum;
    }
}

static void rotate(float *vector, int position) {      // turn each pair (x_i, x_{i+D/2}) by its angle
    int half = size.head / 2;
    for (int i = 0; i < half; i++) {
        float angle = position * powf(size.theta, -(float)i / half), first = vector[i], second = vector[i + half];
        vector[i] = first * cosf(angle) - second * sinf(angle);
        vector[i + half] = second * cosf(angle) + first * sinf(angle);
    }
}

static void attend(int layer, int position) {
    int group = size.heads / size.shared;
    for (int head = 0; head < size.heads; head++) {
        size_t cache = ((size_t)layer * size.shared + head / group) * size.context * size.head;
        const float *own = query + head * size.head;
        float *weight = scores + (size_t)head * size.context, most = -INFINITY, total = 0;
        for (int place = 0; place <= position; place++) {
            const float *other = keys + cache + (size_t)place * size.head;
            float sum = 0;
            for (int i = 0; i < size.head; i++) sum += own[i] * other[i];
            weight[place] = sum / sqrtf(size.head);
            if (weight[place] > most) most = weight[place];
        }
        for (int place = 0; place <= position; place++) total += weight[place] = expf(weight[place] - most);
        float *out = attended + head * size.head;
        memset(out, 0, size.head * sizeof *out);
        for (int place = 0; place <= position; place++) {
            const float *other = values + cache + (size_t)place * size.head;
            for (int i = 0; i < size.head; i++) out[i] += weight[place] / total * other[i];
        }
    }
}

static void read_token(int token, int position) {      // into the cache; `x` is its last hidden state
    memcpy(x, embedding + (size_t)token * size.hidden, size.hidden * sizeof *x);
    for (int number = 0; number < size.layers; number++) {
        const Layer *layer = layers + number;
        normalise(normed, x, layer->norm, size.hidden);
        multiply(query, layer->query, normed, size.heads * size.head, size.hidden);
        multiply(key, layer->key, normed, size.shared * size.head, size.hidden);
        multiply(value, layer->value, normed, size.shared * size.head, size.hidden);
        for (int head = 0; head < size.heads; head++) {
            normalise(query + head * size.head, query + head * size.head, layer->query_norm, size.head);
            rotate(query + head * size.head, position);
        }
        for (int head = 0; head < size.shared; head++) {
            size_t cache = (((size_t)number * size.shared + head) * size.context + position) * size.head;
            normalise(key + head * size.head, key + head * size.head, layer->key_norm, size.head);
            rotate(key + head * size.head, position);
            memcpy(keys + cache, key + head * size.head, size.head * sizeof *keys);
            memcpy(values + cache, value + head * size.head, size.head * sizeof *values);
        }
        attend(number, position);
        multiply(added, layer->out, attended, size.hidden, size.heads * size.head);
        for (int i = 0; i < size.hidden; i++) x[i] += added[i];
        normalise(normed, x, layer->feed_norm, size.hidden);
        multiply(gate, layer->gate, normed, size.wide, size.hidden);
        multiply(up, layer->up, normed, size.wide, size.hidden);
        for (int i = 0; i < size.wide; i++) gate[i] = gate[i] / (1 + expf(-gate[i])) * up[i];      // SwiGLU
        multiply(added, layer->down, gate, size.hidden, size.wide);
        for (int i = 0; i < size.hidden; i++) x[i] += added[i];
    }
}

static int choose(float temperature, uint64_t *random) {      // the next token, after `x`
    normalise(normed, x, last_norm, size.hidden);
    multiply(logits, embedding, normed, size.vocabulary, size.hidden);
    int best = 0;
    for (int token = 1; token < size.vocabulary; token++) if (logits[token] > logits[best]) best = token;
    if (temperature <= 0) return best;
    double total = 0, most = logits[best];
    for (int token = 0; token < size.vocabulary; token++) total += exp((logits[token] - most) / temperature);
    *random ^= *random << 13, *random ^= *random >> 7, *random ^= *random << 17;      // xorshift (Marsaglia 2003)
    double drawn = (*random >> 11) / 9007199254740992.0 * total;
    for (int token = 0; token < size.vocabulary; token++)
        if ((drawn -= exp((logits[token] - most) / temperature)) < 0) return token;
    return best;
}

// ---- the tokenizer: byte-level BPE behind the pattern of Qwen2

enum { OTHER, LETTER, NUMBER, SPACE };

static int character(const char *text, const char *end, int *bytes) {      // code point; bytes that are none count alone
    const unsigned char *at = (const unsigned char *)text;
    int count = at[0] < 0x80 ? 1 : at[0] >> 5 == 6 ? 2 : at[0] >> 4 == 14 ? 3 : at[0] >> 3 == 30 ? 4 : 1;
    if (text + count > end) count = 1;
    int code = count == 1 ? at[0] : at[0] & (0x7f >> count);
    for (int i = 1; i < count; i++) code = code << 6 | (at[i] & 0x3f);
    *bytes = count;
    return code;
}

static int kind_at(const char *text, const char *end, int *bytes) {
    int code = character(text, end, bytes), low = 0, high = size.ranges - 1;
    while (low <= high) {
        int middle = (low + high) / 2;
        const int32_t *range = ranges + 3 * middle;
        if (code < range[0]) high = middle - 1;
        else if (code > range[1]) low = middle + 1;
        else return range[2];
    }
    return OTHER;
}

static const char *run_of(int kind, const char *text, const char *end) {      // where characters of a kind end
    for (int bytes; text < end && kind_at(text, end, &bytes) == kind; text += bytes) {}
    return text;
}

static int is_line_end(char byte) { return byte == '\n' || byte == '\r'; }

static const char *end_of_word(const char *text, const char *end) {      // each rule of the pattern in its turn
    static const char *contractions[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
    for (int i = 0; i < 7; i++) {
        size_t length = strlen(contractions[i]);
        if ((size_t)(end - text) >= length && !strncasecmp(text, contractions[i], length)) return text + length;
    }
    int bytes, unused, first = kind_at(text, end, &bytes);
    const char *next = text + bytes;
    int second = next < end ? kind_at(next, end, &unused) : -1;
    if (first == LETTER) return run_of(LETTER, text, end);
    if (first != NUMBER && !is_line_end(*text) && second == LETTER) return run_of(LETTER, next, end);
    if (first == NUMBER) return next;
    const char *start = *text == ' ' && second == OTHER ? next : text;
    if (kind_at(start, end, &unused) == OTHER) {
        const char *stop = run_of(OTHER, start, end);
        while (stop < end && is_line_end(*stop)) stop++;
        return stop;
    }
    const char *stop = run_of(SPACE, text, end), *line = NULL, *before = text;
    for (const char *place = text; place < stop; place++) if (is_line_end(*place)) line = place;
    if (line) return line + 1;
    if (stop == end) return stop;
    for (const char *place = text; place < stop; place += bytes) before = place, character(place, stop, &bytes);
    return before > text ? before : stop;      // the last white space goes with the word after it
}

static int rank_of(int left, int right) {
    for (uint32_t at = hash(left, right); table[at]; at = (at + 1) & table_mask) {
        const int32_t *merge = merges + 3 * (table[at] - 1);
        if (merge[0] == left && merge[1] == right) return table[at] - 1;
    }
    return size.merges;
}

static int encode_word(const char *text, const char *end, int *ids) {
    int count = 0;
    for (; text < end; text++) ids[count++] = of_byte[(unsigned char)*text];
    for (;;) {
        int best = size.merges, at = 0;
        for (int i = 0; i + 1 < count; i++) {
            int rank = rank_of(ids[i], ids[i + 1]);
            if (rank < best) best = rank, at = i;
        }
        if (best == size.merges) return count;
        ids[at] = merges[3 * best + 2];
        memmove(ids + at + 1, ids + at + 2, (count - at - 2) * sizeof *ids);
        count--;
    }
}

static int special_at(const char *text) {
    for (int token = 0; token < size.vocabulary; token++)
        if (tokens[token].special && !strncmp(text, tokens[token].bytes, tokens[token].size)) return token;
    return -1;
}

static int encode(const char *text, int *ids) {      // special tokens are what they say
    int count = 0;
    const char *end = text + strlen(text);
    while (text < end) {
        int special = special_at(text);
        if (special >= 0) {
            ids[count++] = special;
            text += tokens[special].size;
            continue;
        }
        const char *stop = text;
        while (stop < end && (*stop != '<' || special_at(stop) < 0)) stop++;
        while (text < stop) {
            const char *next = end_of_word(text, stop);
            count += encode_word(text, next, ids + count);
            text = next;
        }
    }
    return count;
}

// ---- talking

static char *conversation;      // as the model reads it

static void add(const char *text) {
    size_t before = conversation ? strlen(conversation) : 0;
    conversation = realloc(conversation, before + strlen(text) + 1);
    if (!conversation) fail("not enough memory", "");
    strcpy(conversation + before, text);
}

static void add_turn(const char *role, char *content) {
    for (char *at = content; *at;) {      // whoever writes must not be able to end a turn
        int special = special_at(at);
        if (special < 0) at++;
        else memmove(at, at + tokens[special].size, strlen(at + tokens[special].size) + 1), at = content;
    }
    add("<|im_start|>"), add(role), add("\n"), add(content), add("<|im_end|>\n");
}

static void generate(const int *prompt, int count, int wanted, float temperature, uint64_t *random, int chats,
                     char *said) {
    int token = 0, last = count + wanted < size.context ? count + wanted : size.context;
    for (int position = 0; position < last - 1; position++) {
        read_token(position < count ? prompt[position] : token, position);
        if (position < count - 1) continue;
        token = choose(temperature, random);
        if (chats && (token == size.turn_end || token == size.text_end)) break;
        if (!chats) printf(position == count - 1 ? "%d" : " %d", token);
        else {
            printf("%.*s", tokens[token].size, tokens[token].bytes);
            strncat(said, tokens[token].bytes, tokens[token].size);
        }
        fflush(stdout);
    }
    printf("\n");
}

static void answer(char *message, int wanted, float temperature, uint64_t *random) {
    add_turn("user", message);
    size_t before = strlen(conversation);
    add("<|im_start|>assistant\n");
    int *ids = room((strlen(conversation) + 1) * sizeof *ids), count = encode(conversation, ids);
    int half = size.context / 2, longest = size.context - wanted > half ? size.context - wanted : half;
    int cut = count > longest ? count - longest : 0;      // what was said longest ago
    size_t most = 1;
    for (int token = 0; token < size.vocabulary; token++) if ((size_t)tokens[token].size > most) most = tokens[token].size;
    char *said = room(most * wanted + 1);
    generate(ids + cut, count - cut, wanted, temperature, random, 1, said);
    conversation[before] = 0;
    add_turn("assistant", said);
    free(ids), free(said);
}

int main(int count, char **arguments) {
    const char *path = "model.bin", *ids = NULL;
    char *message = NULL, line[65536];
    int wanted = 128;
    float temperature = 0;
    uint64_t random = 88172645463325252ull;
    for (int i = 1; i < count; i++) {
        char *option = arguments[i], *given = i + 1 < count ? arguments[i + 1] : NULL;
        if (option[0] != '-') { message = option; continue; }
        if (!given) fail(": needs a value", option);
        if (!strcmp(option, "-m")) path = given;
        else if (!strcmp(option, "-n")) wanted = atoi(given);
        else if (!strcmp(option, "-t")) temperature = atof(given);
        else if (!strcmp(option, "-s")) random ^= strtoull(given, NULL, 10) * 0x9e3779b97f4a7c15ull;
        else if (!strcmp(option, "--ids")) ids = given;
        else fail(": unknown; see the top of run.c", option);
        i++;
    }
    load(path);
    if (ids) {
        int *prompt = room((strlen(ids) + 1) * sizeof *prompt), length = 0;
        for (const char *at = ids; *at; at += strcspn(at, ","), at += *at == ',') {
            prompt[length] = atoi(at);
            if (prompt[length] < 0 || prompt[length++] >= size.vocabulary) fail(": not a token", ids);
        }
        if (length >= size.context) fail(": longer than the context", ids);
        generate(prompt, length, wanted, temperature, &random, 0, NULL);
    } else if (message) {
        char *copy = room(strlen(message) + 1);
        answer(strcpy(copy, message), wanted, temperature, &random);
    } else {
        while (printf("> "), fflush(stdout), fgets(line, sizeof line, stdin)) {
            line[strcspn(line, "\r\n")] = 0;
            if (!*line) break;
            answer(line, wanted, temperature, &random);
        }
    }
    return 0;
}
