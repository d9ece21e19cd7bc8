"""The table of bad inputs: what is given, what the message says, and the exit status."""

from tests.bad_inputs.harness import Row

FIT = "adabelief fit --config digits-cnn"
FOLDER = f"{FIT} --data lightning_adabelief.recipes.image_classification.ImageFolderDataModule --data.root"
GIVE_A_CHECKPOINT = "Give a file that ModelCheckpoint or Trainer.save_checkpoint wrote"

COMMANDS = [
    Row("adabelief ft", ("Unknown command: 'ft'", "Did you mean 'fit'"), 2),
    Row("adabelief show", ("the following arguments are required: name",), 2),
    Row("adabelief show digit-cnn", ("Unknown recipe: 'digit-cnn'", "Did you mean 'digits-cnn'", "adabelief list"), 2),
    Row("adabelief copy digits-cnn taken.yaml", ("taken.yaml exists", "Give another name"), 1),
    Row("adabelief copy digits-cnn none/mine.yaml", ("There is no folder none", "Make it first"), 1),
    Row("adabelief copy digits-cnn a_file/mine.yaml", ("There is no folder a_file",), 1),
    Row("adabelief convert none.yaml", ("none.yaml", "No such file", "Give a path that exists"), 1),
    Row(
        "adabelief convert no_optimizer.yaml", ("no_optimizer.yaml has no optimizer to convert", "torch.optim.Adam"), 2
    ),
    Row("adabelief convert twice.yaml", ("line 2", "'max_epochs' is given 2 times"), 2),
    Row("adabelief convert holds_itself.yaml", ("more than 10000 keys and values",), 2),
    Row("adabelief validate-config none", ("Unknown config: 'none'", "neither a file nor a recipe"), 2),
    Row("adabelief validate-config digits-cnn --trainer.max_epochs=x", ("must be a whole number. Got 'x'",), 2),
    Row("adabelief validate-config digits-cnn --full --model.network.width=0", ("Invalid width: 0",), 1),
    Row("adabelief fit", ("There is no data and no model", "--config digits-cnn"), 2),
    Row("adabelief fit --config", ("--config needs a value",), 2),
    Row("adabelief fit --config=", ("no config of an empty name",), 2),
    Row("adabelief fit --config a_folder", ("'a_folder' is a folder", "Give a file in it"), 2),
    Row("adabelief fit --config none.yaml", ("'none.yaml' is neither a file nor a recipe",), 2),
    Row("adabelief fit digits-cnn", ("'digits-cnn' is not an option", "'--config digits-cnn'"), 2),
    Row(f"{FIT} extra", ("'extra' is not an option", "Options begin with --"), 2),
    Row(f"{FIT} --trainer.max_epochs", ("--trainer.max_epochs needs a value",), 2),
    Row(f"{FIT} --trainer.max_epoch=3", ("Trainer has no option 'max_epoch'", "--trainer.max_epochs"), 2),
    Row(f"{FIT} --lr=0.1", ("There is no option 'lr'", "--model.optimizer.lr"), 2),
    Row(f"{FIT} --model nope.Nope", ("There is no module 'nope'",), 2),
    Row(f"{FIT} --model.network=torch.nn.Lin", ("torch.nn has no class 'Lin'", "Did you mean"), 2),
    Row(f"{FIT} '--trainer.callbacks=&a [*a]'", ("more than 10000 keys and values",), 2),
    Row(f"{FIT} --model=model_twice.yaml", ("'class_path' is given 2 times",), 2),
    Row("adabelief test --config digits-wgan", ("would run with random weights", "Train first"), 1),
]

CONFIGS = [
    Row(f"{FIT} --config {file}", expected, 2)
    for file, expected in {
        "holds_itself.yaml": ("holds_itself.yaml is too long", "or one that holds itself", "Repeat less by aliases"),
        "list_bomb.yaml": ("more than 10000 keys and values",),
        "dict_bomb.yaml": ("more than 10000 keys and values",),
        "twice.yaml": ("line 2", "'max_epochs' is given 2 times"),
        "twice.json": ("'max_epochs' is given 2 times",),
        "deep.yaml": ("nested too deeply",),
        "long.yaml": ("long.yaml is of 1000001 bytes; it may have 1000000",),
        "tab.yaml": ("not YAML: in line 2, column 1",),
        "tag.yaml": ("not YAML", "os.system"),
        "two_documents.yaml": ("in line 2, column 1, expected a single document", "found another document"),
        "unknown_alias.yaml": ("undefined alias 'nobody'",),
        "latin.yaml": ("latin.yaml is not YAML, because it is not text",),
        "utf16.yaml": ("it is not text",),
        "empty.yaml": ("holds None, not keys such as model and trainer", "adabelief show digits-cnn"),
        "words.yaml": ("holds 'just words', not keys",),
        "null_key.yaml": ("the key 'null' is not a name; in quotes it is one",),
        "bool_key.yaml": ("the key 'yes' is not a name; in quotes it is one",),
        "huge_number.yaml": ("not YAML: ", "digits"),
        "trainer_list.yaml": ("trainer is [1], not keys",),
        "model_number.yaml": ("model must be a class, by its path. Got 3",),
        "class_list.yaml": ("model needs a class_path that is text", "Got {'class_path': ['a']}"),
        "arguments_list.yaml": ("model needs a class_path", "init_args that are keys with values"),
        "callbacks_number.yaml": ("trainer.callbacks must be a list or a class, by its path. Got 3",),
    }.items()
]

VALUES = [
    Row(f"{FIT} --{option}", expected, 2)
    for option, expected in {
        "trainer.devices=-1 --trainer.accelerator=cpu": (
            "--trainer.devices is -1",
            "Give a number of devices, 1 or more, or auto",
        ),
        "trainer.log_every_n_steps=-1": ("a whole number >= 0, where 0 is never. Got -1",),
        "trainer.check_val_every_n_epoch=0": ("a whole number >= 1. Got 0",),
        "trainer.val_check_interval=0": ("above 0: a fraction of an epoch, or a whole number of batches. Got 0",),
        "trainer.accumulate_grad_batches=0": ("a whole number >= 1. Got 0",),
        "trainer.gradient_clip_val=-1": ("a number >= 0. Got -1",),
        "trainer.max_epochs=-2": ("a whole number >= -1, where -1 is no limit. Got -2",),
        "trainer.max_epochs=1.5": ("must be a whole number. Got 1.5",),
        "trainer.limit_val_batches=-1": ("a number >= 0. Got -1",),
        "trainer.num_sanity_val_steps=-7": ("where -1 is all. Got -7",),
        "model.lr_scheduler.T_max=0": ("--model.lr_scheduler.T_max must be a whole number >= 1. Got 0",),
        "model.optimizer.lr=-1": ("--model.optimizer.lr must be a finite number >= 0. Got -1",),
        "model.optimizer.lr=.nan": ("a finite number >= 0. Got",),
        "model.optimizer.betas=[0.9,1.0]": ("two numbers in [0, 1), such as [0.9, 0.999]. Got [0.9, 1.0]",),
        "model.optimizer.residual=prev": ("must be 'updated' or 'previous'. Got 'prev'",),
        "model.optimizer.state_bits=12": ("must be 8, 16 or 32. Got 12",),
        "seed_everything=-1": ("a whole number from 0 to 4294967295, or true or false. Got -1",),
        "data.num_workers=x": ("--data.num_workers must be a whole number. Got 'x'",),
        "model.lr_scheduler_interval=year": ("must be 'epoch' or 'step'. Got 'year'",),
    }.items()
]

BUILDING = [
    Row(f"{FIT} --model.network.width=0", ("Invalid width: 0. Give 1 or more",), 1),
    Row(f"{FIT} --model.network.dropout=2", ("Invalid dropout: 2.0. Give a probability in [0, 1]",), 1),
    Row(f"{FIT} --model.network.in_channels=3", ("in_channels is 3 by the network and 1 by the data", "null"), 1),
    Row(f"{FIT} --model.num_classes=3", ("num_classes is 3 by ImageClassifier and 10 by the data", "null"), 1),
    Row(f"{FIT} --model.optimizer.warmup=1.5", ("Invalid warmup: 1.5. As a float it is a fraction",), 1),
    Row(f"{FIT} --data.batch_size=0", ("Invalid batch_size: 0. Give 1 or more",), 1),
    Row(f"{FIT} --data.num_workers=-1", ("Invalid num_workers: -1. Give 0 or more",), 1),
    Row(f"{FIT} --trainer.logger=false", ("BeliefMonitor has nowhere to log to", "Give it one"), 1),
    Row(f"{FIT} --trainer.logger.save_dir=a_file", ("a_file", "give another path"), 1),
    Row(
        f"{FIT} --model.network=torch.nn.Linear --model.network.in_features=3 --model.network.out_features=3",
        ("RuntimeError before anything was trained: ", "mat1 and mat2 shapes", "--debug shows where"),
        1,
    ),
    Row("adabelief fit --config digits-wgan --model.n_critic=0", ("Invalid n_critic: 0. Give 1 or more",), 1),
    Row("adabelief fit --config digits-wgan --model.critic.width=0", ("Invalid width: 0. Give 1 or more",), 1),
    Row(
        "adabelief fit --config digits-wgan --model.critic.image_size=16",
        ("channels, height and width are (1, 8, 8), and the critic takes (1, 16, 16)", "Give generator and critic"),
        1,
    ),
    Row(
        "adabelief fit --config digits-wgan --model.generator.num_classes=3",
        ("The generator's num_classes is 3 and the critic's None", "Give the same number to both"),
        1,
    ),
    Row(
        "adabelief fit --config digits-wgan --model.scores.checkpoint=text.ckpt",
        ("text.ckpt is no checkpoint of Lightning", GIVE_A_CHECKPOINT),
        1,
    ),
    Row(
        "adabelief fit --config digits-wgan --model.scores.checkpoint=foreign.ckpt",
        ("foreign.ckpt, given as the scores' checkpoint, is of another network", "Give the scores its network"),
        1,
    ),
]

DATA = [
    Row(f"{FOLDER}=none", ("There is no folder none", "one folder of images per class"), 1),
    Row(f"{FOLDER}=a_file", ("There is no folder a_file",), 1),
    Row(f"{FOLDER}=no_classes", ("no_classes/train has no images. It has nothing", "a folder of its own"), 1),
    Row(
        f"{FOLDER}=no_images",
        ("no_images/train has no images. It has empty class folders (1)", "a folder of its own"),
        1,
    ),
    Row(f"{FOLDER}=other_classes", ("dog", "cat", "cow"), 1),
    Row(f"{FOLDER}=no_pictures --data.num_workers=0", ("a.png can't be read as an image", "Mend it"), 1),
    Row(f"{FOLDER}=no_pictures --data.num_workers=1", ("a.png can't be read as an image", "Mend it"), 1),
    Row(f"{FOLDER}=texts", ("texts/train has no images", "can't be read as images (2)", "Mend one"), 1),
    Row(f"{FOLDER}=no_pictures --data.size=0", ("Invalid size: 0. Give 1 or more",), 1),
    Row(f"{FOLDER}=no_pictures '--data.groups=('", ("Invalid groups: '(' is no regular expression",), 1),
    Row(f"{FOLDER}=no_pictures '--data.groups=/(x)_'", ("finds no group in", "no_pictures/train"), 1),
    Row(f"{FOLDER}=no_pictures --data.csv=a_file", ("a_file has no column 'file'",), 1),
    Row(f"{FOLDER}=null", ("There are no images. Give data.root, a folder, or data.csv",), 1),
]

CHECKPOINTS = [
    Row(f"adabelief {command} --config digits-cnn --ckpt_path={file}.ckpt", (f"{file}.ckpt", *expected), 1)
    for command, file, expected in [
        ("fit", "none", ("There is no checkpoint none.ckpt", GIVE_A_CHECKPOINT)),
        ("test", "empty", ("is empty", GIVE_A_CHECKPOINT)),
        ("fit", "text", ("is no checkpoint of Lightning", GIVE_A_CHECKPOINT)),
        ("validate", "text", ("is no checkpoint of Lightning", GIVE_A_CHECKPOINT)),
        ("predict", "zeros", ("is no checkpoint of Lightning", GIVE_A_CHECKPOINT)),
        ("fit", "half", ("is cut off: its end is missing", "Give another checkpoint of the run")),
        ("test", "damaged", ("is damaged, in ", "Give another checkpoint of the run")),
        ("fit", "pickle", ("is no checkpoint of Lightning",)),
        ("fit", "malicious_pickle", ("is no checkpoint of Lightning",)),
        ("test", "malicious", ("could run code", "system", "add_safe_globals")),
        ("validate", "archive", ("is an archive of other files, no checkpoint", GIVE_A_CHECKPOINT)),
        ("fit", "module", ("could run code: it holds torch.nn.modules.linear.Linear",)),
        ("predict", "tensor", ("holds a Tensor, no checkpoint", GIVE_A_CHECKPOINT)),
        ("test", "state_dict", ("holds the weights of a module alone", GIVE_A_CHECKPOINT)),
        ("fit", "other_data", ("holds other data, no checkpoint", GIVE_A_CHECKPOINT)),
        ("fit", "weights_only", ("holds weights, but not how far their training was", "such as last.ckpt")),
        ("fit", "version", ("of no known version of Lightning: 'banana'",)),
        ("test", "callbacks", ("its callbacks is a list, not a dict",)),
        ("fit", "optimizers", ("holds states of optimizers that are none", "Give another checkpoint")),
        ("test", "foreign", ("of another network than the config's: it lacks network.", "besides encoder.weight")),
    ]
]

OPTIMIZER = [
    Row("AdaBelief([])", ("empty parameter list",), 1),
    Row("AdaBelief([3])", ("can only optimize Tensors, but one of the params is int",), 1),
    Row("AdaBelief(params(), lr=-1)", ("Invalid learning rate: -1", "a finite number >= 0", "lr=1e-3"), 1),
    Row("AdaBelief(params(), lr=math.nan)", ("Invalid learning rate: nan", "a finite number >= 0"), 1),
    Row("AdaBelief(params(), lr='fast')", ("Invalid lr: 'fast'", "must be a number"), 1),
    Row("AdaBelief(params(), lr=True)", ("Invalid lr: True", "must be a number"), 1),
    Row("AdaBelief(params(), lr=torch.ones(2))", ("Tensor lr must be 1-element, got shape (2,)",), 1),
    Row("AdaBelief(params(), betas=0.9)", ("Invalid betas: 0.9", "betas=(0.9, 0.999)"), 1),
    Row("AdaBelief(params(), betas=(0.9, 1.0))", ("index 1: 1.0. It must be in [0, 1)",), 1),
    Row("AdaBelief(params(), betas=(0, 0.9))", ("Invalid betas: (0, 0.9)", "give residual='previous'"), 1),
    Row("AdaBelief(params(), eps=-1e-8)", ("Invalid epsilon value: -1e-08", "eps=1e-16"), 1),
    Row("AdaBelief(params(), weight_decay='a')", ("Invalid weight_decay: 'a'", "must be a number"), 1),
    Row("AdaBelief(params(), maximize='False')", ("Invalid maximize: 'False'", "maximize=False"), 1),
    Row("AdaBelief(params(), rectify='no')", ("Invalid rectify: 'no'", "rectify=False"), 1),
    Row("AdaBelief(params(), amsgrad=2)", ("Invalid amsgrad: 2", "must be True or False"), 1),
    Row("AdaBelief(params(), warmup=-1)", ("Invalid warmup: -1", "0 for none"), 1),
    Row("AdaBelief(params(), total_steps=0.5)", ("Invalid total_steps: 0.5", "1 or more"), 1),
    Row("AdaBelief(params(), residual='prev')", ("Invalid residual: 'prev'", "'updated' or 'previous'"), 1),
    Row("AdaBelief(params(), state_bits=12)", ("Invalid state_bits: 12", "in 16, a bfloat16, or in 8"), 1),
    Row("AdaBelief(params(), state_bits=8, differentiable=True)", ("do not go together", "leave one of them out"), 1),
    Row("AdaBelief(params(), nonfinite='ignore')", ("Invalid nonfinite: 'ignore'", "'skip'"), 1),
    Row("AdaBelief(params(), max_update_to_lr=-1)", ("Invalid max_update_to_lr: -1", "or None for no bound"), 1),
    Row("AdaBelief([{'params': params(), 'lr': -1}])", ("Invalid learning rate: -1",), 1),
    Row("AdaBelief([{'params': params(), 'maximize': 'yes'}])", ("Invalid maximize: 'yes'",), 1),
    Row("AdaBelief(params()).add_param_group({'params': params(), 'eps': 'x'})", ("Invalid eps: 'x'",), 1),
    Row("step(warmup=0.1)", ("Invalid warmup: 0.1 without total_steps", "configure_adabelief"), 1),
    Row("configure_adabelief(network(), lr=-1)", ("Invalid learning rate: -1",), 1),
    Row("configure_adabelief(network(), layer_decay=2)", ("Invalid layer_decay: 2", "layer_decay=0.75"), 1),
    Row("configure_adabelief(network(), lr_decay=0.5)", ("has no option 'lr_decay'", "Did you mean"), 1),
    Row("configure_adabelief(network(), schedule='cosin')", ("Unknown schedule: 'cosin'", "'cosine'"), 1),
    Row("configure_adabelief(network(), warmup=0.1)", ("needs the length of the run", "total_steps"), 1),
    Row("configure_adabelief(network().requires_grad_(False))", ("all 6 parameters are frozen", "Unfreeze some"), 1),
]

STATES = [
    Row(expression, ("Cannot load", *expected, "nothing was loaded"), 1)
    for expression, expected in {
        "load(exp_avg=torch.ones(3))": ("its exp_avg is of shape (3,)",),
        "load(exp_avg=...)": ("it has no exp_avg",),
        "load(step=torch.tensor(math.nan))": ("its step is tensor(nan)", "a whole number, 0 or more"),
        "load(step=torch.tensor(-1.0))": ("its step is tensor(-1.)",),
        "load(step='a')": ("its step is 'a'",),
        "load(exp_avg_var=-torch.ones(2))": ("exp_avg_var, an average of squares, is negative in places",),
        "load(exp_avg=torch.ones(2, dtype=torch.complex64))": ("its exp_avg is of torch.complex64",),
    }.items()
] + [
    Row("load_group(lr='x')", ("Invalid lr: 'x'",), 1),
    Row("load_group(params=[0, 1])", ("(2 parameters) in the checkpoint", "(1 parameters) here"), 1),
    Row("AdaBelief(params()).load_state_dict({})", ("It takes what optimizer.state_dict() returned",), 1),
    Row(
        "AdaBelief(params()).load_state_dict(torch.optim.SGD(params(), momentum=0.9).state_dict())",
        ("Cannot load this optimizer state", "torch.optim.Adam, AdamW and RAdam can be loaded"),
        1,
    ),
]

CALLBACKS = [
    Row("BeliefMonitor(every_n_steps=0)", ("Invalid every_n_steps: 0", "1 or more, or None for the Trainer's"), 1),
    Row("BeliefMonitor(every_n_steps=1.5)", ("Invalid every_n_steps: 1.5",), 1),
    Row("BeliefMonitor(statistics='s_tt')", ("Unknown statistic: 's_tt'", "Did you mean 's_t'"), 1),
    Row("BeliefMonitor(statistics=3)", ("Invalid statistics: 3", "Give a name, or a list of names"), 1),
    Row("BeliefMonitor(prog_bar='none')", ("'none' is not among", "Add it there"), 1),
    Row("BeliefMonitor(top_k=-1)", ("Invalid top_k: -1. Give a whole number, 0 or more",), 1),
    Row("BeliefMonitor(depth=0)", ("Invalid depth: 0. Give a whole number, 1 or more",), 1),
    Row("BeliefMonitor(include=[])", ("Invalid include: []. Give a glob",), 1),
]

GROUPS = {
    "Commands": COMMANDS,
    "Configs": CONFIGS,
    "Values of options": VALUES,
    "What is built from a config": BUILDING,
    "Folders of data": DATA,
    "Checkpoints": CHECKPOINTS,
    "Options of the optimizer": OPTIMIZER,
    "States of the optimizer": STATES,
    "Callbacks": CALLBACKS,
}
ROWS = [row for rows in GROUPS.values() for row in rows]
