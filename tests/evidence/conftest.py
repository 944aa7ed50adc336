import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for world.py, which is no test
