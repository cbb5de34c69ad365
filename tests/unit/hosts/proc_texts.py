"""Texts as the kernels of several machines give them: /proc/diskstats, and what /sys/class/block tells beside it."""

# ruff: noqa: E501

LAPTOP = """\
 259       0 nvme0n1 401893 98201 32418930 120331 933512 612001 61828104 1203341 0 301222 1401221 120 0 9912 32 81221 77517
 259       1 nvme0n1p1 312 1190 14402 88 2 0 2 0 0 92 88 0 0 0 0 0 0
 259       2 nvme0n1p2 401221 97011 32390112 120188 852290 612001 61828102 1203340 0 300911 1323560 120 0 9912 32 0 0
 253       0 dm-0 498102 0 32388112 170120 1464291 0 61828096 4013120 0 301010 4183272 120 0 9912 32 0 0
 253       1 dm-1 497990 0 32381120 170100 1464291 0 61828096 4013120 0 301008 4183252 120 0 9912 32 0 0
   7       0 loop0 1822 0 62010 921 0 0 0 0 0 812 921 0 0 0 0 0 0
 252       0 zram0 91022 0 728176 301 120331 0 962648 812 0 640 1113 0 0 0 0 0 0
"""
LAPTOP_BLOCKS = """\
dm-0 - nvme0n1p2
dm-1 - dm-0
loop0 - -
nvme0n1 - -
nvme0n1p1 nvme0n1 -
nvme0n1p2 nvme0n1 -
zram0 - -
"""
ARRAY = """\
   8       0 sda 71020 1203 9012012 40120 81220 40120 18012024 90120 0 71022 130240 0 0 0 0
   8       1 sda1 70012 1203 9001012 40020 81120 40120 18012020 90110 0 71002 130130 0 0 0 0
   8      16 sdb 70120 1190 8991012 39120 81220 40122 18012024 91120 0 70022 130240 0 0 0 0
   8      17 sdb1 70012 1190 8990012 39020 81120 40122 18012020 91110 0 70002 130130 0 0 0 0
   9     127 md127 140001 0 17990024 0 81120 0 18012020 0 0 0 0 0 0 0 0
 253       0 dm-0 140001 0 17990020 80120 81120 0 18012020 181220 0 90120 261340 0 0 0 0
  11       0 sr0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
"""
ARRAY_BLOCKS = "dm-0 - md127\nmd127 - sda1,sdb1\nsda - -\nsda1 sda -\nsdb - -\nsdb1 sdb -\nsr0 - -\n"
MULTIPATH = """\
   8      16 sdb 1000 0 800000 10 0 0 0 0 0 10 10 0 0 0 0 0 0
   8      32 sdc 1200 0 960000 10 0 0 0 0 0 10 10 0 0 0 0 0 0
  65      16 sdr 900 0 720000 10 0 0 0 0 0 10 10 0 0 0 0 0 0
 253       3 dm-3 3100 0 2480000 30 0 0 0 0 0 10 30 0 0 0 0 0 0
 253       4 dm-4 3090 0 2479000 30 0 0 0 0 0 10 30 0 0 0 0 0 0
"""
MULTIPATH_BLOCKS = "dm-3 - sdb,sdc,sdr\ndm-4 - dm-3\nsdb - -\nsdc - -\nsdr - -\n"
NVME_OVER_FABRICS = """\
 259       0 nvme1n1 9000 0 7200000 90 1000 0 800000 10 0 90 100 0 0 0 0 0 0
 259       1 nvme1c1n1 5000 0 4000000 50 500 0 400000 5 0 50 55 0 0 0 0 0 0
 259       2 nvme1c2n1 4000 0 3200000 40 500 0 400000 5 0 40 45 0 0 0 0 0 0
"""
NVME_SILENT_HEAD = """\
 259       0 nvme1n1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
 259       1 nvme1c1n1 5000 0 4000000 50 500 0 400000 5 0 50 55 0 0 0 0
 259       2 nvme1c2n1 4000 0 3200000 40 500 0 400000 5 0 40 45 0 0 0 0
"""
CLOUD = """\
 202       0 xvda 18120 401 901202 8120 40120 90122 1801202 30120 0 12012 38240
 202       1 xvda1 18001 401 900002 8100 40110 90122 1801202 30110 0 12002 38210
 202      80 xvdf 120 0 9120 10 0 0 0 0 0 10 10
"""
CPUINFO_X86 = """\
processor\t: 0
model name\t: Example CPU @ 2.40GHz
physical id\t: 0
core id\t\t: 0

processor\t: 1
model name\t: Example CPU @ 2.40GHz
physical id\t: 0
core id\t\t: 0

processor\t: 2
model name\t: Example CPU @ 2.40GHz
physical id\t: 1
core id\t\t: 0

processor\t: 3
model name\t: Example CPU @ 2.40GHz
physical id\t: 1
core id\t\t: 0
"""
CPUINFO_ARM = "processor\t: 0\nBogoMIPS\t: 243.75\n\nprocessor\t: 1\nBogoMIPS\t: 243.75\n\nModel\t\t: Example Board\n"
NETDEV = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:  395911    1341    0    0    0     0          0         0   395911    1341    0    0    0     0       0          0
eth0:1677060398   38692    1    2    0     0          0         7  2203784   24037    0    0    0     0       0          0
 bond0: 1677060398   38692    1    2    0     0          0         7  2203784   24037    0    0    0     0       0          0
"""
