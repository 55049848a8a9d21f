"""How far factors spread over the phantom world, and how exactly they are read: the constants of `metrics.factors`.

python benchmarks/factors.py [PEOPLE]
"""

import sys
import time

from countervid.metrics.rendered import noise, spreads

people = int(sys.argv[1]) if len(sys.argv) > 1 else 8
start = time.perf_counter()
apart, anew = spreads(people), noise(people)
print(f"{people} people, 4 frames of 256 px each, {time.perf_counter() - start:.0f} s")
print(f"{'factor':28} {'spread':>9} {'noise':>9} {'noise / spread':>15}")
for name in sorted(apart):
    still = anew.get(name, float("nan"))
    print(f"{name:28} {apart[name]:9.4f} {still:9.4f} {still / apart[name]:15.3f}")
