#!/bin/sh
# Goes down the parabola x * x from a random point: descend.sh LR SEED
set -eu

awk -v lr="$1" -v seed="$2" 'BEGIN {
    srand(seed % 2147483647)
    x = 1 + rand()
    for (step = 1; step <= 20; step++) {
        x -= lr * 2 * x
        printf "{\"step\": %d, \"loss\": %.17g, \"x\": %.17g}\n", step, x * x, x
    }
}' > "${ERGODIC_METRICS:-/dev/stdout}"
